//! The lists of used pools, one for each size class. Blocks of a class are allocated from the first
//! pool of the list of that class.
//!
//! ```text
//!   class 0 ──► pool ⇄ pool ⇄ pool          the first one serves every request of its class
//!   class 1 ──► PoolPtr::NONE                a pool without blocks, so no test for null is needed
//!   class 2 ──► pool
//! ```
//!
//! In CPython, these lists are `usedpools`.

#![forbid(unsafe_code)]

use crate::{
    geometry::{Geometry, MAX_CLASSES, size_class::SizeClass},
    pool::{PoolPtr, State},
};

/// The first used pool of each class.
#[derive(Debug)]
pub(crate) struct UsedPools {
    /// # Invariant
    ///
    /// `heads[i]` is the first pool in the list of class i, or `PoolPtr::NONE` if the list is
    /// empty. Every pool of the list has class i and is in the state `Used` or `Retained`.
    heads: [PoolPtr; MAX_CLASSES],
}

impl UsedPools {
    pub(crate) const fn new() -> Self {
        Self { heads: [PoolPtr::NONE; MAX_CLASSES] }
    }

    /// Returns the first pool of the list of `class`, or [`PoolPtr::NONE`] if the list is empty.
    #[inline]
    pub(crate) fn first<G: Geometry>(&self, class: SizeClass<G>) -> PoolPtr {
        // The index is always below MAX_CLASSES, so taking the remainder does not change the index.
        // But the compiler does not know this without the remainder, and would add a bounds check.
        self.heads[class.index() % MAX_CLASSES]
    }

    /// Puts `pool` at the front of its class's list.
    ///
    /// Only the first pool of a list may have run out of blocks. If the previous first pool has run
    /// out of blocks, it therefore becomes full and leaves the list, because otherwise it would be
    /// the second pool.
    pub(crate) fn push_front<G: Geometry>(&mut self, class: SizeClass<G>, pool: PoolPtr) {
        let mut first = self.first(class);
        if first != PoolPtr::NONE && first.header().has_run_out::<G>() {
            self.remove_full(class, first);
            first = self.first(class);
        }
        pool.header().prev.set(None);
        if first == PoolPtr::NONE {
            pool.header().next.set(None);
        } else {
            pool.header().next.set(Some(first));
            first.header().prev.set(Some(pool));
        }
        // INVARIANT: the caller has made `pool` a used pool of this class, and the code above has
        // linked `pool` to the previous first pool.
        self.heads[class.index()] = pool;
    }

    /// Removes `pool`, which has run out of blocks, from its class's list and marks it as full.
    pub(crate) fn remove_full<G: Geometry>(&mut self, class: SizeClass<G>, pool: PoolPtr) {
        self.remove(class, pool);
        pool.header().become_full();
    }

    /// Removes `pool` from its class's list.
    pub(crate) fn remove<G: Geometry>(&mut self, class: SizeClass<G>, pool: PoolPtr) {
        debug_assert_eq!(pool.header().state(), State::Used);
        let (prev, next) = (pool.header().prev.take(), pool.header().next.take());
        if let Some(next) = next {
            next.header().prev.set(prev);
        }
        match prev {
            Some(prev) => prev.header().next.set(next),
            None => self.heads[class.index()] = next.unwrap_or(PoolPtr::NONE),
        }
    }

    /// Iterates over the pools of `class`, first to last.
    pub(crate) fn iter<G: Geometry>(&self, class: SizeClass<G>) -> impl Iterator<Item = PoolPtr> {
        let first = Some(self.first(class)).filter(|first| *first != PoolPtr::NONE);
        core::iter::successors(first, |pool| pool.header().next.get())
    }
}
