//! Fetch sessions (KIP-227): what a client has said about its partitions, so that it need not say it again.
//!
//! 1. A full fetch with epoch 0 asks for a session; it gets one if there is room, else session id 0, which is none.
//! 2. An incremental fetch (epoch 1, 2, ...; after 2^31 - 1 comes 1) changes, adds and forgets partitions; all the others stay as they were.
//! 3. Its answer holds only partitions with records, an error, or a new high watermark or log start. A partition with records goes to
//!    the end of the order, so that a full answer starves nobody.
//! 4. Room is found by evicting the session that is idle longest, if for [`IDLE`]; else the smallest one that is smaller than the new one
//!    and older than that.
//!
//! Invariants: sessions <= slots; partitions of all sessions <= [`PARTITIONS_MAX`], of one <=
//! [`SESSION_PARTITIONS_MAX`]; `order` and `parts` of a session name the same partitions.
//! Knows nothing of topics that exist or of records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millrace_base::clock::Nanos;
use millrace_base::ids::Uuid;
use millrace_base::offset::{Epoch, Offset};

use crate::names::TopicRef;
use crate::wire::errors::ErrorCode;

/// A session used since may not be evicted for another one of its size.
pub const IDLE: Duration = Duration::from_secs(120);

/// Partitions that the sessions of one shard remember together.
pub const PARTITIONS_MAX: usize = 500_000;

/// Partitions of one session: each costs memory while a fetch of it waits, and the request that brings it there may name none.
pub const SESSION_PARTITIONS_MAX: usize = 100_000;

/// The epoch of a fetch that wants no session, or closes the one it names.
const EPOCH_FINAL: i32 = -1;
/// The epoch of a fetch that asks for a session.
const EPOCH_INITIAL: i32 = 0;

/// A topic as its client names it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TopicKey {
    Name(Arc<str>),
    Id(Uuid),
}

impl TopicKey {
    pub fn as_ref(&self) -> TopicRef<'_> {
        match self {
            TopicKey::Name(name) => TopicRef::Name(name),
            TopicKey::Id(id) => TopicRef::Id(*id),
        }
    }
}

/// A partition of a fetch.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PartKey {
    pub topic: TopicKey,
    pub index: i32,
}

/// What the client wants of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    pub offset: Offset,
    pub max_bytes: i32,
    pub current_epoch: Epoch,
    pub last_read_epoch: Epoch,
}

/// What a partition's answer would say, as far as it decides whether to say it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shown {
    pub is_error: bool,
    pub has_records: bool,
    pub is_diverging: bool,
    pub high_watermark: Offset,
    pub log_start: Offset,
}

#[derive(Debug)]
struct Cached {
    place: u64,
    wanted: Wanted,
    high_watermark: Offset,
    log_start: Offset,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    id: i32,
    /// Of the next fetch.
    epoch: i32,
    uses_ids: bool,
    created: Nanos,
    used: Nanos,
    next_place: u64,
    order: BTreeMap<u64, PartKey>,
    parts: BTreeMap<PartKey, Cached>,
}

/// What kind of fetch it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Sessionless,
    /// All partitions are named, and a session is asked for.
    Full {
        uses_ids: bool,
    },
    Incremental {
        id: i32,
    },
}

/// What a request says about sessions.
#[derive(Debug)]
pub struct Ask {
    pub id: i32,
    pub epoch: i32,
    pub uses_ids: bool,
    pub wanted: Vec<(PartKey, Wanted)>,
    pub forgotten: Vec<PartKey>,
}

/// What is to be fetched, in this order.
#[derive(Debug)]
pub struct Begun {
    pub kind: Kind,
    pub parts: Vec<(PartKey, Wanted)>,
}

/// The sessions of one shard.
#[derive(Debug)]
pub struct Sessions {
    slots: usize,
    sessions: BTreeMap<i32, Session>,
    partitions: usize,
}

impl Sessions {
    pub fn new(slots: usize) -> Sessions {
        Sessions { slots, sessions: BTreeMap::new(), partitions: 0 }
    }

    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// What a fetch asks for. The error is for the whole fetch.
    pub fn begin(&mut self, ask: Ask, now: Nanos) -> Result<Begun, ErrorCode> {
        match ask.epoch {
            EPOCH_FINAL => {
                self.remove(ask.id);
                Ok(Begun { kind: Kind::Sessionless, parts: ask.wanted })
            }
            EPOCH_INITIAL => {
                self.remove(ask.id);
                let kind = if self.slots == 0 { Kind::Sessionless } else { Kind::Full { uses_ids: ask.uses_ids } };
                Ok(Begun { kind, parts: ask.wanted })
            }
            _ => self.begin_incremental(ask, now),
        }
    }

    fn begin_incremental(&mut self, ask: Ask, now: Nanos) -> Result<Begun, ErrorCode> {
        let room = PARTITIONS_MAX - self.partitions;
        let session = self.sessions.get_mut(&ask.id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.epoch != ask.epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.uses_ids != ask.uses_ids {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        let before = session.parts.len();
        for key in ask.forgotten {
            session.forget(&key);
        }
        let room = (room + before).min(SESSION_PARTITIONS_MAX) - session.parts.len().min(SESSION_PARTITIONS_MAX);
        if ask.wanted.iter().filter(|(key, _)| !session.parts.contains_key(key)).count() > room {
            // The client starts again with a full fetch and gets no session.
            self.partitions -= before - session.parts.len();
            self.remove(ask.id);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        for (key, wanted) in ask.wanted {
            session.want(key, wanted);
        }
        session.epoch = if session.epoch == i32::MAX { 1 } else { session.epoch + 1 };
        session.used = now;
        let after = session.parts.len();
        let parts = session.order.values().filter_map(|key| Some((key.clone(), session.parts.get(key)?.wanted))).collect();
        self.partitions = self.partitions + after - before;
        if after == 0 {
            self.remove(ask.id);
            return Ok(Begun { kind: Kind::Sessionless, parts: Vec::new() });
        }
        Ok(Begun { kind: Kind::Incremental { id: ask.id }, parts })
    }

    /// The session id to answer with, and for each part whether it belongs into the answer. `entropy` gives random bits for a new id.
    pub fn end(
        &mut self,
        kind: Kind,
        parts: &[(PartKey, Wanted, Shown)],
        now: Nanos,
        mut entropy: impl FnMut() -> u64,
    ) -> (i32, Vec<bool>) {
        match kind {
            Kind::Sessionless => (0, vec![true; parts.len()]),
            Kind::Full { uses_ids } => {
                let id = self.create(uses_ids, parts, now, &mut entropy).unwrap_or(0);
                (id, vec![true; parts.len()])
            }
            Kind::Incremental { id } => {
                let Some(session) = self.sessions.get_mut(&id) else { return (id, vec![true; parts.len()]) };
                (id, parts.iter().map(|(key, _, shown)| session.answer(key, *shown)).collect())
            }
        }
    }

    fn create(&mut self, uses_ids: bool, parts: &[(PartKey, Wanted, Shown)], now: Nanos, entropy: &mut impl FnMut() -> u64) -> Option<i32> {
        if parts.is_empty() || !self.make_room(parts.len(), now) || self.partitions + parts.len() > PARTITIONS_MAX {
            return None;
        }
        let mut fresh = || (entropy() & 0x7fff_ffff) as i32;
        let id = (0..16).map(|_| fresh()).find(|id| *id != 0 && !self.sessions.contains_key(id))?;
        let mut session =
            Session { id, epoch: 1, uses_ids, created: now, used: now, next_place: 0, order: BTreeMap::new(), parts: BTreeMap::new() };
        for (key, wanted, shown) in parts {
            session.want(key.clone(), *wanted);
            session.answer(key, *shown);
        }
        self.partitions += session.parts.len();
        self.sessions.insert(id, session);
        Some(id)
    }

    /// Whether there is a slot for a session of so many partitions, now.
    fn make_room(&mut self, partitions: usize, now: Nanos) -> bool {
        if self.sessions.len() < self.slots {
            return true;
        }
        let idle = self.sessions.values().min_by_key(|session| session.used).filter(|session| now.since(session.used) >= IDLE);
        let smaller = || {
            let smallest = self.sessions.values().min_by_key(|session| (session.parts.len(), session.used))?;
            (smallest.parts.len() < partitions && now.since(smallest.created) >= IDLE).then_some(smallest)
        };
        match idle.or_else(smaller).map(|session| session.id) {
            Some(id) => self.remove(id).is_some(),
            None => false,
        }
    }

    /// Closes a session, or takes it out because its connection moves.
    pub fn remove(&mut self, id: i32) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        self.partitions -= session.parts.len();
        Some(session)
    }

    /// Takes in a session whose connection came from another shard. Without room, or if its id is taken, it is forgotten.
    pub fn adopt(&mut self, session: Session, now: Nanos) {
        let size = session.parts.len();
        let fits = self.partitions + size <= PARTITIONS_MAX && !self.sessions.contains_key(&session.id);
        if self.slots > 0 && fits && self.make_room(size, now) {
            self.partitions += size;
            self.sessions.insert(session.id, session);
        }
    }
}

impl Session {
    fn want(&mut self, key: PartKey, wanted: Wanted) {
        if let Some(cached) = self.parts.get_mut(&key) {
            cached.wanted = wanted;
            return;
        }
        let place = self.next_place;
        self.next_place += 1;
        self.order.insert(place, key.clone());
        self.parts.insert(key, Cached { place, wanted, high_watermark: -1, log_start: -1 });
    }

    fn forget(&mut self, key: &PartKey) {
        if let Some(cached) = self.parts.remove(key) {
            self.order.remove(&cached.place);
        }
    }

    /// Notes what an answer shows of a partition; whether it is worth showing.
    fn answer(&mut self, key: &PartKey, shown: Shown) -> bool {
        let Some(cached) = self.parts.get_mut(key) else { return true };
        let is_news = shown.is_error
            || shown.has_records
            || shown.is_diverging
            || shown.high_watermark != cached.high_watermark
            || shown.log_start != cached.log_start;
        // After an error the next good answer is news.
        cached.high_watermark = if shown.is_error { -1 } else { shown.high_watermark };
        cached.log_start = if shown.is_error { -1 } else { shown.log_start };
        if shown.has_records {
            self.order.remove(&cached.place);
            cached.place = self.next_place;
            self.next_place += 1;
            self.order.insert(cached.place, key.clone());
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, index: i32) -> PartKey {
        PartKey { topic: TopicKey::Name(name.into()), index }
    }

    fn wanted(offset: Offset) -> Wanted {
        Wanted { offset, max_bytes: 100, current_epoch: -1, last_read_epoch: -1 }
    }

    const QUIET: Shown = Shown { is_error: false, has_records: false, is_diverging: false, high_watermark: 5, log_start: 0 };

    fn ask(id: i32, epoch: i32, wants: &[(&str, i32)]) -> Ask {
        let wanted = wants.iter().map(|(name, index)| (key(name, *index), wanted(0))).collect();
        Ask { id, epoch, uses_ids: false, wanted, forgotten: Vec::new() }
    }

    fn seconds(n: u64) -> Nanos {
        Nanos(0).plus_ms(n * 1000)
    }

    /// A fetch from begin to end in which every partition shows `shown`; the session id and the names of the parts answered.
    fn fetch(sessions: &mut Sessions, ask: Ask, shown: Shown, now: Nanos) -> Result<(i32, Vec<i32>), ErrorCode> {
        let begun = sessions.begin(ask, now)?;
        let parts: Vec<_> = begun.parts.into_iter().map(|(key, wanted)| (key, wanted, shown)).collect();
        let mut seed = 100 + sessions.len() as u64;
        let (id, included) = sessions.end(begun.kind, &parts, now, || {
            seed += 1;
            seed
        });
        Ok((id, parts.iter().zip(included).filter(|(_, is)| *is).map(|(part, _)| part.0.index).collect()))
    }

    #[test]
    fn an_incremental_fetch_answers_only_what_changed() {
        let mut sessions = Sessions::new(2);
        let (id, all) = fetch(&mut sessions, ask(0, 0, &[("t", 0), ("t", 1)]), QUIET, seconds(0)).unwrap();
        assert!(id > 0);
        assert_eq!(all, [0, 1]);
        assert_eq!(fetch(&mut sessions, ask(id, 1, &[]), QUIET, seconds(1)), Ok((id, vec![])));
        let grown = Shown { high_watermark: 6, ..QUIET };
        assert_eq!(fetch(&mut sessions, ask(id, 2, &[]), grown, seconds(1)), Ok((id, vec![0, 1])));
        assert_eq!(fetch(&mut sessions, ask(id, 3, &[]), grown, seconds(1)), Ok((id, vec![])));
        let failed = Shown { is_error: true, ..grown };
        assert_eq!(fetch(&mut sessions, ask(id, 4, &[]), failed, seconds(1)), Ok((id, vec![0, 1])));
        assert_eq!(fetch(&mut sessions, ask(id, 5, &[]), grown, seconds(1)), Ok((id, vec![0, 1])));
    }

    #[test]
    fn partitions_are_added_changed_and_forgotten() {
        let mut sessions = Sessions::new(2);
        let (id, _) = fetch(&mut sessions, ask(0, 0, &[("t", 0)]), QUIET, seconds(0)).unwrap();
        let mut more = ask(id, 1, &[("t", 2)]);
        more.forgotten.push(key("t", 9));
        let begun = sessions.begin(more, seconds(0)).unwrap();
        assert_eq!(begun.parts.iter().map(|part| part.0.index).collect::<Vec<_>>(), [0, 2]);
        let mut change = ask(id, 2, &[("t", 2)]);
        change.wanted[0].1.offset = 77;
        change.forgotten.push(key("t", 0));
        let begun = sessions.begin(change, seconds(0)).unwrap();
        assert_eq!(begun.parts, [(key("t", 2), wanted(77))]);
        let mut last = ask(id, 3, &[]);
        last.forgotten.push(key("t", 2));
        assert_eq!(sessions.begin(last, seconds(0)).unwrap().kind, Kind::Sessionless);
        assert!(sessions.is_empty());
        assert_eq!(sessions.partitions, 0);
    }

    #[test]
    fn a_large_session_may_ask_anew_for_all_it_has_and_not_for_more_than_there_may_be() {
        let mut sessions = Sessions::new(2);
        let all: Vec<(&str, i32)> = (0..SESSION_PARTITIONS_MAX as i32).map(|index| ("t", index)).collect();
        let (id, _) = fetch(&mut sessions, ask(0, 0, &all), QUIET, seconds(0)).unwrap();
        assert_eq!(sessions.begin(ask(id, 1, &all), seconds(0)).unwrap().parts.len(), all.len());
        let more = ask(id, 2, &[("t", SESSION_PARTITIONS_MAX as i32)]);
        assert_eq!(sessions.begin(more, seconds(0)).err(), Some(ErrorCode::FetchSessionIdNotFound));
    }

    #[test]
    fn wrong_ids_epochs_and_ways_of_naming_are_refused() {
        let mut sessions = Sessions::new(2);
        let (id, _) = fetch(&mut sessions, ask(0, 0, &[("t", 0)]), QUIET, seconds(0)).unwrap();
        let error = |sessions: &mut Sessions, ask| sessions.begin(ask, seconds(0)).err();
        assert_eq!(error(&mut sessions, ask(id + 1, 1, &[])), Some(ErrorCode::FetchSessionIdNotFound));
        assert_eq!(error(&mut sessions, ask(id, 2, &[])), Some(ErrorCode::InvalidFetchSessionEpoch));
        assert_eq!(error(&mut sessions, ask(id, -2, &[])), Some(ErrorCode::InvalidFetchSessionEpoch));
        let mixed = Ask { uses_ids: true, ..ask(id, 1, &[]) };
        assert_eq!(error(&mut sessions, mixed), Some(ErrorCode::FetchSessionTopicIdError));
        assert!(sessions.begin(ask(id, 1, &[]), seconds(0)).is_ok());
    }

    #[test]
    fn epochs_go_from_the_greatest_to_one() {
        let mut sessions = Sessions::new(1);
        let (id, _) = fetch(&mut sessions, ask(0, 0, &[("t", 0)]), QUIET, seconds(0)).unwrap();
        sessions.sessions.get_mut(&id).unwrap().epoch = i32::MAX;
        assert!(fetch(&mut sessions, ask(id, i32::MAX, &[]), QUIET, seconds(0)).is_ok());
        assert!(fetch(&mut sessions, ask(id, 1, &[]), QUIET, seconds(0)).is_ok());
    }

    #[test]
    fn a_final_fetch_closes_and_an_initial_one_replaces() {
        let mut sessions = Sessions::new(2);
        let (first, _) = fetch(&mut sessions, ask(0, 0, &[("t", 0)]), QUIET, seconds(0)).unwrap();
        let (second, _) = fetch(&mut sessions, ask(first, 0, &[("t", 0)]), QUIET, seconds(0)).unwrap();
        assert_eq!(sessions.len(), 1);
        assert_eq!(fetch(&mut sessions, ask(second, -1, &[("t", 0)]), QUIET, seconds(0)), Ok((0, vec![0])));
        assert!(sessions.is_empty());
    }

    #[test]
    fn a_full_cache_evicts_the_idle_then_the_smaller_and_else_gives_no_session() {
        let mut sessions = Sessions::new(1);
        let (first, _) = fetch(&mut sessions, ask(0, 0, &[("a", 0)]), QUIET, seconds(0)).unwrap();
        assert_eq!(fetch(&mut sessions, ask(0, 0, &[("b", 0), ("b", 1)]), QUIET, seconds(60)).unwrap().0, 0);
        // In use until now, old enough, and smaller: it goes.
        fetch(&mut sessions, ask(first, 1, &[]), QUIET, seconds(121)).unwrap();
        assert_eq!(fetch(&mut sessions, ask(0, 0, &[("b", 0)]), QUIET, seconds(122)).unwrap().0, 0);
        let (second, _) = fetch(&mut sessions, ask(0, 0, &[("b", 0), ("b", 1)]), QUIET, seconds(122)).unwrap();
        assert!(second > 0);
        // Idle: it goes for one that is not larger.
        let (third, _) = fetch(&mut sessions, ask(0, 0, &[("c", 0)]), QUIET, seconds(300)).unwrap();
        assert!(third > 0);
        assert_eq!((sessions.len(), sessions.partitions), (1, 1));
        assert_eq!(fetch(&mut Sessions::new(0), ask(0, 0, &[("c", 0)]), QUIET, seconds(0)).unwrap().0, 0);
    }

    #[test]
    fn a_partition_with_records_goes_to_the_end_of_the_order() {
        let mut sessions = Sessions::new(1);
        let (id, _) = fetch(&mut sessions, ask(0, 0, &[("t", 0), ("t", 1), ("t", 2)]), QUIET, seconds(0)).unwrap();
        let begun = sessions.begin(ask(id, 1, &[]), seconds(0)).unwrap();
        let records = Shown { has_records: true, ..QUIET };
        let shown = [records, QUIET, QUIET];
        let parts: Vec<_> = begun.parts.into_iter().zip(shown).map(|((key, wanted), shown)| (key, wanted, shown)).collect();
        assert_eq!(sessions.end(begun.kind, &parts, seconds(0), || 1), (id, vec![true, false, false]));
        let begun = sessions.begin(ask(id, 2, &[]), seconds(0)).unwrap();
        assert_eq!(begun.parts.iter().map(|part| part.0.index).collect::<Vec<_>>(), [1, 2, 0]);
    }

    #[test]
    fn a_session_moves_with_its_connection() {
        let (mut here, mut there) = (Sessions::new(1), Sessions::new(1));
        let (id, _) = fetch(&mut here, ask(0, 0, &[("t", 0)]), QUIET, seconds(0)).unwrap();
        there.adopt(here.remove(id).unwrap(), seconds(0));
        assert!(here.is_empty() && here.partitions == 0);
        assert_eq!(fetch(&mut there, ask(id, 1, &[]), QUIET, seconds(0)), Ok((id, vec![])));
    }
}
