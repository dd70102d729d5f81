//! Scenarios of groups, on a machine whose log, clock and clients are vectors.

mod membership;
mod offsets;
mod walk;

use std::collections::BTreeMap;

use millrace_base::ids::Uuid;

use super::records::Record;
use super::*;

/// A machine with its log, its clock and its unanswered requests.
struct World {
    groups: Groups,
    settings: Settings,
    log: Vec<Record>,
    writes: Vec<(WriteToken, Vec<Record>)>,
    answers: BTreeMap<RequestToken, Answer>,
    timer: Option<u64>,
    now: u64,
    next: u64,
    /// Commit writes as they come.
    prompt: bool,
}

impl World {
    fn new() -> World {
        World::with(Settings { initial_rebalance_delay_ms: 0, ..Settings::default() })
    }

    fn with(settings: Settings) -> World {
        let mut world = World {
            groups: Groups::new(settings.clone()),
            settings,
            log: Vec::new(),
            writes: Vec::new(),
            answers: BTreeMap::new(),
            timer: None,
            now: 1_000,
            next: 0,
            prompt: true,
        };
        let effects = world.groups.loaded(world.time());
        world.take(effects);
        world
    }

    fn time(&self) -> Now {
        Now { steady_ms: self.now, wall_ms: 1_700_000_000_000 + self.now as i64 }
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Reply { request, answer } => {
                    if let Answer::Committed(partitions) = &answer {
                        let good = partitions.iter().filter(|partition| partition.result.is_ok());
                        good.for_each(|partition| {
                            assert!(self.log_holds(&partition.topic, partition.partition), "acknowledged, not durable")
                        });
                    }
                    assert!(self.answers.insert(request, answer).is_none(), "request {request} is answered twice");
                }
                Effect::Write { token, records } => self.writes.push((token, records)),
                Effect::Timer { at_ms } => self.timer = Some(at_ms),
            }
        }
        if self.prompt {
            while !self.writes.is_empty() {
                self.commit_write(Ok(()));
            }
        }
    }

    fn log_holds(&self, topic: &str, partition: i32) -> bool {
        let wanted = records::Change::Offset { group: "g".into(), topic: topic.into(), partition, value: None }.encode().key;
        self.log.iter().any(|record| record.key == wanted && record.value.is_some())
    }

    /// Reports the oldest write.
    fn commit_write(&mut self, result: Result<(), WriteError>) {
        let (token, records) = self.writes.remove(0);
        if result.is_ok() {
            self.log.extend(records);
        }
        let effects = self.groups.written(token, result, self.time());
        self.take(effects);
    }

    fn send(&mut self, request: Request) -> RequestToken {
        self.next += 1;
        let token = self.next;
        let effects = self.groups.handle(token, request, self.time(), Uuid::from_entropy(token, token));
        self.take(effects);
        token
    }

    fn ask(&mut self, request: Request) -> Answer {
        let token = self.send(request);
        self.answer(token)
    }

    fn answer(&mut self, token: RequestToken) -> Answer {
        self.answers.remove(&token).expect("it is answered by now")
    }

    /// Lets time pass, firing timers as they come.
    fn pass(&mut self, ms: u64) {
        let until = self.now + ms;
        let mut fired = 0;
        while let Some(at) = self.timer.filter(|at| *at <= until) {
            self.timer = None;
            self.now = self.now.max(at);
            let effects = self.groups.tick(self.time());
            self.take(effects);
            fired += 1;
            assert!(fired < 10_000, "a timer that never rests");
        }
        self.now = until;
    }

    /// A machine made of the log alone.
    fn restart(&mut self) {
        assert!(self.writes.is_empty());
        self.groups = replayed(&self.settings, &self.log);
        self.timer = None;
        let effects = self.groups.loaded(self.time());
        self.take(effects);
    }

    fn described(&mut self) -> Description {
        let Answer::Described(result) = self.ask(Request::Describe { group: "g".into() }) else { panic!() };
        result.unwrap()
    }

    fn state(&mut self) -> GroupState {
        self.described().state
    }

    fn joined(&mut self, token: RequestToken) -> Joined {
        let Answer::Joined(result) = self.answer(token) else { panic!() };
        result.unwrap()
    }

    fn join_error(&mut self, token: RequestToken) -> GroupError {
        let Answer::Joined(Err(refused)) = self.answer(token) else { panic!() };
        refused.error
    }

    fn synced(&mut self, token: RequestToken) -> Result<Vec<u8>, GroupError> {
        let Answer::Synced(result) = self.answer(token) else { panic!() };
        result.map(|synced| synced.assignment)
    }

    /// A dynamic member's first two joins; the second waits.
    fn enter(&mut self, client: &str) -> (String, RequestToken) {
        let token = self.send(Request::Join(Join { member_id_required: true, ..join(client) }));
        let Answer::Joined(Err(refused)) = self.answer(token) else { panic!() };
        assert_eq!(refused.error, GroupError::MemberIdRequired);
        let again = Join { member_id: refused.member_id.clone(), member_id_required: true, ..join(client) };
        (refused.member_id, self.send(Request::Join(again)))
    }

    fn sync(&mut self, member: &Joined, assignments: &[(&str, &[u8])]) -> RequestToken {
        self.send(Request::Sync(sync(member, assignments)))
    }

    /// One member in a stable group, with assignment `[1]`.
    fn stable_of_one(&mut self) -> Joined {
        let (_, token) = self.enter("a");
        self.pass(0);
        let joined = self.joined(token);
        let token = self.sync(&joined, &[(&joined.member_id.clone(), &[1])]);
        assert_eq!(self.synced(token), Ok(vec![1]));
        joined
    }

    /// Two members in a stable group, `[1]` the leader's.
    fn stable_of_two(&mut self) -> (Joined, Joined) {
        let (_, a) = self.enter("a");
        let (_, b) = self.enter("b");
        self.pass(0);
        let (a, b) = (self.joined(a), self.joined(b));
        let (leader, follower) = if a.leader == a.member_id { (a, b) } else { (b, a) };
        let waiting = self.sync(&follower, &[]);
        let token = self.sync(&leader, &[(&leader.member_id.clone(), &[1]), (&follower.member_id.clone(), &[2])]);
        assert_eq!(self.synced(token), Ok(vec![1]));
        assert_eq!(self.synced(waiting), Ok(vec![2]));
        (leader, follower)
    }

    fn heartbeat(&mut self, member: &Joined) -> Result<(), GroupError> {
        let request =
            Request::Heartbeat { group: "g".into(), member_id: member.member_id.clone(), instance_id: None, generation: member.generation };
        let Answer::Heartbeat(result) = self.ask(request) else { panic!() };
        result
    }

    fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<Result<(), GroupError>> {
        let leaving = |(id, instance): &(&str, Option<&str>)| Leaving { member_id: id.to_string(), instance_id: instance.map(Into::into) };
        let request = Request::Leave { group: "g".into(), members: members.iter().map(leaving).collect() };
        let Answer::Left(result) = self.ask(request) else { panic!() };
        result.unwrap().into_iter().map(|(_, result)| result).collect()
    }
}

fn replayed(settings: &Settings, log: &[Record]) -> Groups {
    let mut groups = Groups::new(settings.clone());
    for record in log {
        groups.replay(&record.key, record.value.as_deref()).unwrap();
    }
    groups
}

fn subscription(topics: &[&str]) -> Vec<u8> {
    let mut out = vec![0, 1];
    out.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        out.extend((topic.len() as i16).to_be_bytes());
        out.extend(topic.as_bytes());
    }
    out.extend([0xff; 4]);
    out
}

fn join(client: &str) -> Join {
    Join {
        group: "g".into(),
        member_id: String::new(),
        instance_id: None,
        client_id: client.into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), subscription(&["t"]))],
        member_id_required: false,
        can_skip_assignment: false,
    }
}

fn static_join(instance: &str) -> Join {
    Join { instance_id: Some(instance.into()), ..join("s") }
}

fn sync(member: &Joined, assignments: &[(&str, &[u8])]) -> Sync {
    Sync {
        group: "g".into(),
        member_id: member.member_id.clone(),
        instance_id: None,
        generation: member.generation,
        protocol_type: None,
        protocol: None,
        assignments: assignments.iter().map(|(id, bytes)| (id.to_string(), bytes.to_vec())).collect(),
    }
}
