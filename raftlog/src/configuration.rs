//! Who votes, and what a majority of them is.
//!
//! 1. A member is a node and the disk its log lies on: a node with a wiped disk is another member and remembers no vote.
//! 2. A configuration is joint while it also names the voters it replaces: then whatever needs a majority needs one of each set.
//!
//! Invariants: 1 <= voters <= VOTERS_MAX; the members of a set differ; a joint configuration names two non-empty sets.
//! Knows nothing of epochs or how configurations change.

use millrace_base::ids::{NodeId, Uuid};

/// Voters of one set.
pub const VOTERS_MAX: usize = 32;

/// A replica as consensus knows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Member {
    pub node: NodeId,
    /// The identity of the data directory, made when it was first used.
    pub disk: Uuid,
}

/// The voters of a replica set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configuration {
    voters: Box<[Member]>,
    /// The voters being replaced; empty unless joint.
    outgoing: Box<[Member]>,
}

impl Configuration {
    /// None when a set is too large or names a member twice, or when `voters` is empty.
    pub fn new(voters: &[Member], outgoing: &[Member]) -> Option<Configuration> {
        if voters.is_empty() || !is_set(voters) || !is_set(outgoing) {
            return None;
        }
        Some(Configuration { voters: voters.into(), outgoing: outgoing.into() })
    }

    pub fn sole(member: Member) -> Configuration {
        Configuration { voters: Box::new([member]), outgoing: Box::new([]) }
    }

    pub fn voters(&self) -> &[Member] {
        &self.voters
    }

    /// The voters being replaced; empty unless joint.
    pub fn outgoing(&self) -> &[Member] {
        &self.outgoing
    }

    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    pub fn is_voter(&self, member: &Member) -> bool {
        self.voters.contains(member) || self.outgoing.contains(member)
    }

    /// True when `member` alone is every majority there is.
    pub fn is_sole(&self, member: &Member) -> bool {
        *self.voters == [*member] && (self.outgoing.is_empty() || *self.outgoing == [*member])
    }

    /// Every voter once, in a fixed order.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.voters.iter().chain(self.outgoing.iter().filter(|member| !self.voters.contains(member)))
    }

    /// True when `agrees` holds for a majority of each set.
    pub fn majority(&self, agrees: impl Fn(&Member) -> bool) -> bool {
        let of = |set: &[Member]| set.iter().filter(|member| agrees(member)).count() > set.len() / 2;
        of(&self.voters) && (self.outgoing.is_empty() || of(&self.outgoing))
    }

    /// The largest value that a majority of each set has reached. Does not allocate: the sets are small, so it counts.
    pub fn reached<T: Ord + Copy>(&self, value: impl Fn(&Member) -> T) -> T {
        let of = |set: &[Member]| {
            set.iter().map(&value).filter(|bar| set.iter().filter(|member| value(member) >= *bar).count() > set.len() / 2).max()
        };
        let voters = of(&self.voters).expect("a set of voters is never empty, and its smallest value is reached by all");
        of(&self.outgoing).map_or(voters, |outgoing| outgoing.min(voters))
    }
}

fn is_set(members: &[Member]) -> bool {
    members.len() <= VOTERS_MAX && members.iter().enumerate().all(|(at, member)| !members[..at].contains(member))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(nodes: &[i32]) -> Vec<Member> {
        nodes.iter().map(|node| Member { node: *node, disk: Uuid([*node as u8; 16]) }).collect()
    }

    #[test]
    fn reached_is_the_median_and_both_majorities_when_joint() {
        let check = |voters: &[i32], outgoing: &[i32], expected: i32| {
            let configuration = Configuration::new(&members(voters), &members(outgoing)).unwrap();
            assert_eq!(configuration.reached(|member| member.node), expected, "{voters:?} {outgoing:?}");
            assert!(configuration.majority(|member| member.node >= expected));
            assert!(!configuration.majority(|member| member.node > expected));
        };
        check(&[5], &[], 5);
        check(&[5, 9], &[], 5);
        check(&[1, 5, 9], &[], 5);
        check(&[1, 5, 7, 9], &[], 5);
        check(&[1, 5, 9], &[1, 2, 9], 2);
        check(&[1, 2, 3], &[7, 8, 9], 2);
    }

    #[test]
    fn a_set_is_refused_when_empty_doubled_or_too_large() {
        assert!(Configuration::new(&[], &[]).is_none());
        assert!(Configuration::new(&members(&[1, 1]), &[]).is_none());
        assert!(Configuration::new(&members(&[1]), &members(&[2, 2])).is_none());
        let many: Vec<i32> = (0..=VOTERS_MAX as i32).collect();
        assert!(Configuration::new(&members(&many), &[]).is_none());
    }

    #[test]
    fn the_same_node_on_a_new_disk_is_another_member() {
        let old = Member { node: 1, disk: Uuid([1; 16]) };
        let new = Member { node: 1, disk: Uuid([2; 16]) };
        assert!(!Configuration::sole(old).is_voter(&new));
        assert!(!Configuration::sole(old).is_sole(&new));
    }
}
