//! Where a block lies, said so that two heaps can be compared.
//!
//! Addresses differ from run to run. What must not differ between a heap and its model is which
//! arena (counted in the order in which arenas were had), which pool of it, and how far into it:
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
    /// The arena: 0 for the first that the heap ever got, and so on.
    pub arena: usize,
    /// The pool in the arena.
    pub pool: usize,
    /// Bytes from the start of the pool, its header included.
    pub offset: usize,
}

/// Which arenas a heap has, numbered in the order in which it got them. Clones share the log.
#[derive(Clone, Debug, Default)]
pub struct ArenaLog(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    /// Address to number.
    mapped: BTreeMap<usize, usize>,
    ever: usize,
}

impl ArenaLog {
    /// Takes note of a new arena.
    ///
    /// # Panics
    ///
    /// Panics when it is mapped already.
    pub fn map(&self, arena: NonNull<u8>) {
        let mut log = self.entries();
        let number = log.ever;
        log.ever += 1;
        let before = log.mapped.insert(arena.addr().get(), number);
        assert_eq!(before, None, "{arena:p} is mapped twice");
    }

    /// Takes note that an arena was given back.
    ///
    /// # Panics
    ///
    /// Panics when it is not mapped.
    pub fn unmap(&self, arena: NonNull<u8>) {
        let number = self.entries().mapped.remove(&arena.addr().get());
        assert!(number.is_some(), "{arena:p} is given back, but not mapped");
    }

    /// How many arenas are mapped now.
    pub fn mapped(&self) -> usize {
        self.entries().mapped.len()
    }

    /// How many arenas were ever mapped.
    pub fn ever(&self) -> usize {
        self.entries().ever
    }

    /// The addresses of the arenas that are mapped now, by number.
    pub fn arenas(&self) -> BTreeMap<usize, usize> {
        self.entries().mapped.iter().map(|(&address, &number)| (number, address)).collect()
    }

    /// Where `address` lies in arenas of `arena_size` bytes with pools of `pool_size` bytes, both
    /// powers of two; `None` when it is in no arena.
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
    fn arenas_are_numbered_in_the_order_in_which_they_came() {
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
    #[should_panic(expected = "not mapped")]
    fn an_arena_that_is_given_back_twice_is_found() {
        let log = ArenaLog::default();
        log.map(arena(0x4000));
        log.unmap(arena(0x4000));
        log.unmap(arena(0x4000));
    }
}
