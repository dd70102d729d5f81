//! Random walks: clients that join, sync, commit, vanish and come back, writes that commit late or fail, restarts; and what must hold.

use millrace_base::prng::Prng;

use super::super::group::Group;
use super::*;

/// A client as it sees itself.
#[derive(Clone, Default)]
struct Client {
    member_id: String,
    instance: Option<String>,
    generation: i32,
    leader: bool,
    members: Vec<String>,
    waits: Option<RequestToken>,
}

fn check(world: &World, generations: &mut BTreeMap<String, i32>) {
    for (name, group) in world.groups.all() {
        check_group(group);
        let last = generations.entry(name.clone()).or_default();
        assert!(group.generation >= *last, "generations of {name} only grow");
        *last = group.generation;
        assert_eq!(group.bytes(), group.bytes_anew(), "memory of {name}");
    }
    let writes = world.groups.bytes() - world.groups.all().values().map(Group::bytes).sum::<usize>();
    assert_eq!(writes == 0, world.writes.is_empty(), "memory of all groups and writes");
    generations.retain(|name, _| world.groups.all().contains_key(name));
}

fn check_group(group: &Group) {
    assert_eq!(group.awaiting, group.members.values().filter(|member| member.awaiting_join.is_some()).count());
    for (protocol, count) in &group.supported {
        assert_eq!(*count, group.members.values().filter(|member| member.protocols.iter().any(|(name, _)| name == protocol)).count());
    }
    assert_eq!(group.leader.is_some(), !group.members.is_empty());
    assert!(group.leader.iter().all(|leader| group.members.contains_key(leader)));
    assert!(group.static_members.values().all(|id| group.members.contains_key(id)));
    assert!(group.pending.keys().all(|id| !group.members.contains_key(id)));
    match group.state {
        GroupState::Empty | GroupState::Dead => assert!(group.members.is_empty()),
        GroupState::Stable => {
            assert!(!group.members.is_empty());
            // Who assigned gave everyone exactly one byte.
            for (id, member) in &group.members {
                assert_eq!(member.assignment.len(), 1, "{id} has its assignment");
                assert!(member.awaiting_sync.is_none());
            }
        }
        GroupState::PreparingRebalance => {
            assert!(group.join_timer.is_some(), "a phase of joining ends by itself");
            assert!(group.members.values().all(|member| member.awaiting_sync.is_none()));
        }
        GroupState::CompletingRebalance => assert!(group.sync_deadline.is_some() || group.pending_sync.is_empty()),
    }
    if let Some(deadline) = group.next_deadline() {
        assert!(group.wake.is_some_and(|wake| wake <= deadline), "no deadline is slept through");
    }
}

fn durable(groups: &Groups) -> Vec<Record> {
    groups.live_records().collect()
}

fn absorb(client: &mut Client, answer: Answer) {
    match answer {
        Answer::Joined(Ok(joined)) => {
            client.generation = joined.generation;
            client.leader = joined.leader == joined.member_id;
            client.members = joined.members.iter().map(|member| member.member_id.clone()).collect();
            assert!(!client.leader || client.members.contains(&joined.member_id));
            client.member_id = joined.member_id;
        }
        Answer::Joined(Err(refused)) if refused.error == GroupError::MemberIdRequired => client.member_id = refused.member_id,
        Answer::Joined(Err(_)) => client.member_id = String::new(),
        Answer::Heartbeat(Err(GroupError::UnknownMemberId)) | Answer::Synced(Err(GroupError::UnknownMemberId)) => {
            client.member_id = String::new();
        }
        _ => {}
    }
}

fn step(world: &mut World, prng: &mut Prng, client: &mut Client) {
    let id = client.member_id.clone();
    let protocols = [("range".into(), subscription(&["t"])), ("sticky".into(), subscription(&["t"]))];
    let request = match prng.below(12) {
        0..=3 => Request::Join(Join {
            member_id: id,
            instance_id: client.instance.clone(),
            member_id_required: prng.one_in(2),
            can_skip_assignment: prng.one_in(2),
            rebalance_timeout_ms: 20_000,
            protocols: protocols[..1 + prng.below(2) as usize].to_vec(),
            ..join("c")
        }),
        4..=6 => Request::Sync(Sync {
            group: "g".into(),
            member_id: id,
            instance_id: client.instance.clone(),
            generation: client.generation,
            protocol_type: None,
            protocol: None,
            assignments: client.members.iter().map(|member| (member.clone(), vec![1])).collect(),
        }),
        7 => Request::Heartbeat { group: "g".into(), member_id: id, instance_id: None, generation: client.generation },
        8 => Request::Leave { group: "g".into(), members: vec![Leaving { member_id: id, instance_id: client.instance.clone() }] },
        9 => Request::DeleteOffsets { group: "g".into(), partitions: vec![("t".into(), vec![prng.below(3) as i32])] },
        10 if prng.one_in(3) => Request::DeleteGroup { group: "g".into() },
        _ => {
            let simple = prng.one_in(4);
            Request::Commit(Commit {
                group: "g".into(),
                member_id: if simple { String::new() } else { id },
                instance_id: None,
                generation: if simple { -1 } else { client.generation },
                retention_ms: None,
                offsets: vec![CommitOffset {
                    topic: ["t", "u"][prng.below(2) as usize].into(),
                    partition: prng.below(3) as i32,
                    offset: prng.below(100) as i64,
                    leader_epoch: -1,
                    metadata: String::new(),
                }],
            })
        }
    };
    client.waits = Some(world.send(request));
}

/// Walks one seed; the number of times the group was seen stable.
fn walk(seed: u64) -> usize {
    let mut prng = Prng::new(seed);
    let delay = prng.below(2) * 2_000;
    let mut world = World::with(Settings { initial_rebalance_delay_ms: delay, group_size_max: 4, ..Settings::default() });
    world.prompt = false;
    let mut clients: Vec<Client> =
        (0..5).map(|index| Client { instance: (index >= 3).then(|| format!("i{}", index % 4)), ..Client::default() }).collect();
    let mut generations = BTreeMap::new();
    let mut stable = 0;
    for _ in 0..400 {
        let client = &mut clients[prng.below(5) as usize];
        if let Some(token) = client.waits {
            if let Some(answer) = world.answers.remove(&token) {
                client.waits = None;
                absorb(client, answer);
            } else if prng.one_in(20) {
                client.waits = None; // its connection broke
            }
        }
        if client.waits.is_none() {
            step(&mut world, &mut prng, client);
        }
        if prng.one_in(30) {
            *client = Client { instance: client.instance.clone(), ..Client::default() }; // it restarted
        }
        match prng.below(10) {
            0..=4 if !world.writes.is_empty() => world.commit_write(Ok(())),
            5 if !world.writes.is_empty() && prng.one_in(5) => world.commit_write(Err(WriteError::Unavailable)),
            6 => world.pass([1, 500, 3_000, 12_000][prng.below(4) as usize]),
            7 if prng.one_in(10) => {
                let effects = world.groups.topics_deleted(&["u".into()], world.time());
                world.take(effects);
            }
            8 if prng.one_in(20) => {
                while !world.writes.is_empty() {
                    world.commit_write(Ok(()));
                }
                // Bound the log as the shard does, sometimes, then start again from it.
                if prng.one_in(2) {
                    world.log = world.groups.live_records().collect();
                }
                world.restart();
                generations.clear(); // generations that were never durable are forgotten
            }
            _ => {}
        }
        check(&world, &mut generations);
        stable += usize::from(world.groups.all().get("g").is_some_and(|group| group.state == GroupState::Stable));
        if world.writes.is_empty() {
            assert_eq!(durable(&replayed(&world.settings, &world.log)), durable(&world.groups), "seed {seed}");
            let live: Vec<Record> = world.groups.live_records().collect();
            assert_eq!(live.len(), world.groups.live_count());
        }
    }
    // Heal: writes commit, time passes, nobody is left waiting.
    world.prompt = true;
    while !world.writes.is_empty() {
        world.commit_write(Ok(()));
    }
    world.pass(700_000);
    assert!(world.groups.all().values().all(|group| group.members.is_empty()), "seed {seed}: sessions end");
    assert_eq!(world.groups.writes_in_flight(), 0);
    stable
}

#[test]
fn random_walks_keep_the_invariants() {
    let stable: usize = (0..300).map(walk).sum();
    assert!(stable > 1_000, "the walk reaches stable groups: {stable}");
}

#[test]
fn live_records_appended_after_writes_in_flight_change_nothing() {
    let mut world = World::new();
    world.prompt = false;
    let offset = |offset| CommitOffset { topic: "t".into(), partition: 0, offset, leader_epoch: -1, metadata: String::new() };
    for value in [1, 2] {
        world.send(Request::Commit(Commit {
            group: "g".into(),
            member_id: String::new(),
            instance_id: None,
            generation: -1,
            retention_ms: None,
            offsets: vec![offset(value)],
        }));
    }
    world.commit_write(Ok(()));
    let live: Vec<Record> = world.groups.live_records().collect();
    world.commit_write(Ok(()));
    world.log.extend(live);
    assert_eq!(durable(&replayed(&world.settings, &world.log)), durable(&world.groups));
}
