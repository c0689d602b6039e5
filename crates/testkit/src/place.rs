//! Describes a block by its arena, pool and offset, because addresses differ between heaps:
//!
//! ```text
//!   0x7f31_2c14_8030  =  arena 2 · pool 5 · offset 48
//! ```

use std::{
    collections::BTreeMap,
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The place of a block in a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spot {
    /// The number of the arena, counted from 0 in the order of mapping.
    pub arena: usize,
    /// The index of the pool in the arena.
    pub pool: usize,
    /// The distance in bytes from the start of the pool, which begins with a header.
    pub offset: usize,
}

/// A log of the arenas that a heap maps, which are numbered in order. Clones share their entries.
#[derive(Clone, Debug, Default)]
pub struct ArenaLog(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    /// The number of each mapped arena, by address.
    mapped: BTreeMap<usize, usize>,
    ever: usize,
    /// The size in bytes of each large mapping, by address.
    large: BTreeMap<usize, usize>,
}

impl ArenaLog {
    /// Records that `arena` was mapped, and gives it the next number.
    ///
    /// # Panics
    ///
    /// Panics if an arena is already mapped at this address.
    pub fn map(&self, arena: NonNull<u8>) {
        let mut log = self.entries();
        let number = log.ever;
        log.ever += 1;
        let before = log.mapped.insert(arena.addr().get(), number);
        assert_eq!(before, None, "{arena:p} is mapped twice");
    }

    /// Records that `arena` was unmapped. Its number is not used again.
    ///
    /// # Panics
    ///
    /// Panics if no arena is mapped at this address.
    pub fn unmap(&self, arena: NonNull<u8>) {
        let number = self.entries().mapped.remove(&arena.addr().get());
        assert!(number.is_some(), "{arena:p} is unmapped but was not mapped");
    }

    /// Records that a large mapping was made at `start`.
    ///
    /// # Panics
    ///
    /// Panics if there already is one.
    pub fn map_large(&self, start: NonNull<u8>, bytes: usize) {
        let before = self.entries().large.insert(start.addr().get(), bytes);
        assert_eq!(before, None, "{start:p} is mapped twice");
    }

    /// Records that a large mapping was unmapped or resized.
    ///
    /// # Panics
    ///
    /// Panics if there is no such mapping of this size.
    pub fn unmap_large(&self, start: NonNull<u8>, bytes: usize) {
        let before = self.entries().large.remove(&start.addr().get());
        assert_eq!(before, Some(bytes), "{start:p} is unmapped but was not mapped");
    }

    /// Returns the number of large mappings.
    pub fn large(&self) -> usize {
        self.entries().large.len()
    }

    /// Returns the number of arenas that are currently mapped.
    pub fn mapped(&self) -> usize {
        self.entries().mapped.len()
    }

    /// Returns the number of arenas that were ever mapped.
    pub fn ever(&self) -> usize {
        self.entries().ever
    }

    /// Returns the address of each mapped arena, by number.
    pub fn arenas(&self) -> BTreeMap<usize, usize> {
        self.entries().mapped.iter().map(|(&address, &number)| (number, address)).collect()
    }

    /// Returns the place of the block at `address`, or `None` if it is not in a mapped arena.
    ///
    /// The sizes are in bytes, and `arena_size` must be a power of two.
    pub fn spot(&self, address: usize, arena_size: usize, pool_size: usize) -> Option<Spot> {
        let base = address & !(arena_size - 1);
        let arena = *self.entries().mapped.get(&base)?;
        let within = address - base;
        Some(Spot { arena, pool: within / pool_size, offset: within % pool_size })
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena(address: usize) -> NonNull<u8> {
        NonNull::without_provenance(address.try_into().unwrap())
    }

    #[test]
    fn arenas_are_numbered_in_the_order_of_mapping() {
        let log = ArenaLog::default();
        log.map(arena(0x8000));
        log.map(arena(0x4000));
        assert_eq!(
            log.spot(0x4000 + 0x1030, 0x4000, 0x1000),
            Some(Spot { arena: 1, pool: 1, offset: 0x30 })
        );
        log.unmap(arena(0x8000));
        assert_eq!(log.spot(0x8000, 0x4000, 0x1000), None);
        log.map(arena(0x8000));
        assert_eq!(log.spot(0x8000, 0x4000, 0x1000), Some(Spot { arena: 2, pool: 0, offset: 0 }));
        assert_eq!((log.mapped(), log.ever()), (2, 3));
    }

    #[test]
    #[should_panic(expected = "was not mapped")]
    fn an_arena_that_is_unmapped_twice_is_detected() {
        let log = ArenaLog::default();
        log.map(arena(0x4000));
        log.unmap(arena(0x4000));
        log.unmap(arena(0x4000));
    }
}
