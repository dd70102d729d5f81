//! Requests that wait for something: slots with generations, so that a late event finds its request or nothing.

/// One waiting request; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WaitId {
    pub slot: u32,
    pub generation: u32,
}

/// A slab of waiting requests of one kind.
pub struct Waits<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Waits<T> {
    fn default() -> Waits<T> {
        Waits { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Waits<T> {
    pub fn insert(&mut self, wait: T) -> WaitId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() as u32 - 1
        });
        let entry = &mut self.slots[slot as usize];
        entry.0 = entry.0.wrapping_add(1);
        entry.1 = Some(wait);
        WaitId { slot, generation: entry.0 }
    }

    pub fn get(&self, id: WaitId) -> Option<&T> {
        let entry = self.slots.get(id.slot as usize)?;
        if entry.0 == id.generation { entry.1.as_ref() } else { None }
    }

    pub fn get_mut(&mut self, id: WaitId) -> Option<&mut T> {
        let entry = self.slots.get_mut(id.slot as usize)?;
        if entry.0 == id.generation { entry.1.as_mut() } else { None }
    }

    pub fn remove(&mut self, id: WaitId) -> Option<T> {
        let entry = self.slots.get_mut(id.slot as usize)?;
        if entry.0 != id.generation {
            return None;
        }
        let wait = entry.1.take()?;
        self.free.push(id.slot);
        Some(wait)
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The waits for which `is_it` holds.
    pub fn find(&self, is_it: impl Fn(&T) -> bool) -> Vec<WaitId> {
        let found = self.slots.iter().enumerate().filter(|(_, (_, wait))| wait.as_ref().is_some_and(&is_it));
        found.map(|(slot, (generation, _))| WaitId { slot: slot as u32, generation: *generation }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_event_does_not_find_the_slots_next_user() {
        let mut waits = Waits::default();
        let first = waits.insert("first");
        assert_eq!(waits.remove(first), Some("first"));
        let second = waits.insert("second");
        assert_eq!(first.slot, second.slot);
        assert_eq!(waits.get_mut(first), None);
        assert_eq!(waits.remove(first), None);
        assert_eq!(waits.len(), 1);
        assert_eq!(waits.find(|w| *w == "second"), [second]);
    }
}
