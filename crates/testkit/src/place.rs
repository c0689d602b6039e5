//! Places of blocks, so that heaps at different addresses can be compared.
//!
//! Addresses differ from run to run. A heap and its model must instead agree on the arena (counted
//! in the order of mapping), the pool in the arena, and the offset in the pool:
//!
//! ```text
//!   0x7f31_2c14_8030  =  arena 2 · pool 5 · offset 48
//! ```

use std::{
    collections::BTreeMap,
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A place in the arenas of one heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spot {
    /// The number of the arena. The first one that was ever mapped is 0.
    pub arena: usize,
    /// The index of the pool in the arena.
    pub pool: usize,
    /// The bytes from the start of the pool, including its header.
    pub offset: usize,
}

/// The arenas of a heap, numbered in the order of mapping. Clones share the log.
#[derive(Clone, Debug, Default)]
pub struct ArenaLog(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    /// The numbers of the mapped arenas by address.
    mapped: BTreeMap<usize, usize>,
    /// The number of arenas that were ever mapped.
    ever: usize,
}

impl ArenaLog {
    /// Records a new arena.
    ///
    /// # Panics
    ///
    /// Panics if it is already mapped.
    pub fn map(&self, arena: NonNull<u8>) {
        let mut log = self.entries();
        let number = log.ever;
        log.ever += 1;
        let before = log.mapped.insert(arena.addr().get(), number);
        assert_eq!(before, None, "{arena:p} is mapped twice");
    }

    /// Records that an arena was unmapped.
    ///
    /// # Panics
    ///
    /// Panics if it is not mapped.
    pub fn unmap(&self, arena: NonNull<u8>) {
        let number = self.entries().mapped.remove(&arena.addr().get());
        assert!(number.is_some(), "{arena:p} is unmapped but was not mapped");
    }

    /// Returns the number of mapped arenas.
    pub fn mapped(&self) -> usize {
        self.entries().mapped.len()
    }

    /// Returns the number of arenas that were ever mapped.
    pub fn ever(&self) -> usize {
        self.entries().ever
    }

    /// Returns the addresses of the mapped arenas by number.
    pub fn arenas(&self) -> BTreeMap<usize, usize> {
        self.entries().mapped.iter().map(|(&address, &number)| (number, address)).collect()
    }

    /// Returns the place of `address` in arenas of `arena_size` bytes with pools of `pool_size`
    /// bytes, or `None` if it is in no arena. Both sizes must be powers of two.
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
