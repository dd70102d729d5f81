//! Which shard a connection talks to: after enough requests that mostly went to one other shard, it moves there.
//!
//! Knows nothing of connections or partitions.

use millrace_base::ids::ShardId;

/// Requests that are looked at.
const WINDOW: usize = 64;

/// Of these, so many must have gone to one shard: nine tenths.
const ENOUGH: usize = (WINDOW * 9).div_ceil(10);

/// The owners of the last produces and fetches.
#[derive(Clone, Debug, Default)]
pub struct Affinity {
    last: Vec<Option<ShardId>>,
    at: usize,
}

impl Affinity {
    /// Notes one produce or fetch: the shard that owns all its partitions, if one does. The shard to move to, if it is time; then the
    /// count begins again.
    pub fn note(&mut self, owner: Option<ShardId>, here: ShardId) -> Option<ShardId> {
        if self.last.len() < WINDOW {
            self.last.push(owner);
        } else {
            self.last[self.at] = owner;
        }
        self.at = (self.at + 1) % WINDOW;
        // Once a round is often enough.
        if self.last.len() < WINDOW || self.at != 0 {
            return None;
        }
        let target = owner.filter(|owner| *owner != here)?;
        let share = self.last.iter().filter(|owner| **owner == Some(target)).count();
        if share < ENOUGH {
            return None;
        }
        self.last.clear();
        Some(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moves(owners: impl Iterator<Item = Option<ShardId>>) -> Vec<ShardId> {
        let mut affinity = Affinity::default();
        owners.filter_map(|owner| affinity.note(owner, 0)).collect()
    }

    #[test]
    fn a_connection_moves_once_nine_tenths_go_elsewhere() {
        assert_eq!(moves((0..63).map(|_| Some(1))), []);
        assert_eq!(moves((0..64).map(|_| Some(1))), [1]);
        assert_eq!(moves((0..64).map(|n| if n % 11 == 0 { None } else { Some(2) })), [2]);
        assert_eq!(moves((0..640).map(|n| if n % 5 == 0 { Some(0) } else { Some(2) })), []);
        assert_eq!(moves((0..640).map(|_| Some(0))), []);
    }
}
