//! For each class, the pools that have blocks to give.
//!
//! ```text
//!   class 0 ──► pool ⇄ pool ⇄ pool          the first serves every request of its class
//!   class 1 ──► no pool                      a pool that has nothing, so that no test asks
//!   class 2 ──► pool
//! ```
//!
//! CPython: `usedpools`.

use crate::{
    geometry::{Geometry, MOST_CLASSES},
    pool::{PoolPtr, State},
    size_class::SizeClass,
};

/// The first used pool of each class.
#[derive(Debug)]
pub(crate) struct UsedPools {
    /// # Invariant
    ///
    /// The head of each class's list, or `PoolPtr::NONE`. Every pool of a list is of that class
    /// and in the state `Used` or `Resting`.
    heads: [PoolPtr; MOST_CLASSES],
}

impl UsedPools {
    pub(crate) const fn new() -> Self {
        Self { heads: [PoolPtr::NONE; MOST_CLASSES] }
    }

    /// The pool that serves `class`, or [`PoolPtr::NONE`].
    #[inline]
    pub(crate) fn first<G: Geometry>(&self, class: SizeClass<G>) -> PoolPtr {
        // The mask is known to change nothing, and spares the bounds check.
        self.heads[class.index() % MOST_CLASSES]
    }

    /// Puts `pool` before all others of its class.
    ///
    /// If the first has run out of blocks it leaves the list before that, so that no pool without
    /// blocks is ever second.
    pub(crate) fn push_front<G: Geometry>(&mut self, class: SizeClass<G>, pool: PoolPtr) {
        let mut first = self.first(class);
        if first != PoolPtr::NONE && first.header().has_run_out::<G>() {
            self.retire(class, first);
            first = self.first(class);
        }
        pool.header().prev.set(None);
        if first == PoolPtr::NONE {
            pool.header().next.set(None);
        } else {
            pool.header().next.set(Some(first));
            first.header().prev.set(Some(pool));
        }
        // INVARIANT: the caller has made it a used pool of this class.
        self.heads[class.index()] = pool;
    }

    /// Takes a full `pool` out of its class's list.
    pub(crate) fn retire<G: Geometry>(&mut self, class: SizeClass<G>, pool: PoolPtr) {
        self.unlink(class, pool);
        pool.header().become_full();
    }

    /// Takes `pool` out of its class's list.
    pub(crate) fn unlink<G: Geometry>(&mut self, class: SizeClass<G>, pool: PoolPtr) {
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

    /// The pools of `class`, first to last.
    pub(crate) fn iter<G: Geometry>(&self, class: SizeClass<G>) -> impl Iterator<Item = PoolPtr> {
        let first = Some(self.first(class)).filter(|first| *first != PoolPtr::NONE);
        core::iter::successors(first, |pool| pool.header().next.get())
    }
}
