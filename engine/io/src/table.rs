//! Things with small numbers: a number is given out, found again, and reused after its thing was taken.
//!
//! Invariants: a number in `free` has no thing; numbers are dense from 0.
//! Knows nothing of what the things are.

pub(crate) struct Table<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Table<T> {
    pub(crate) fn new() -> Table<T> {
        Table { slots: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, thing: T) -> u32 {
        match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = Some(thing);
                number
            }
            None => {
                self.slots.push(Some(thing));
                u32::try_from(self.slots.len() - 1).expect("open things are far below 2^32")
            }
        }
    }

    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        self.slots.get(number as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.slots.get_mut(number as usize)?.as_mut()
    }

    pub(crate) fn take(&mut self, number: u32) -> Option<T> {
        let thing = self.slots.get_mut(number as usize)?.take()?;
        self.free.push(number);
        Some(thing)
    }

    /// Things that are in.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes everything out, by number.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.free.clear();
        std::mem::take(&mut self.slots).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_reused_only_after_its_thing_was_taken() {
        let mut table = Table::new();
        assert_eq!((table.insert('a'), table.insert('b')), (0, 1));
        assert_eq!((table.take(0), table.take(0), table.get(7)), (Some('a'), None, None));
        assert_eq!((table.insert('c'), table.insert('d'), table.len()), (0, 2, 3));
        assert_eq!(table.drain().collect::<String>(), "cbd");
    }
}
