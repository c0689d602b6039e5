//! The used pools of each size class, in one list per class (CPython's `usedpools`).
//!
//! An empty list contains `PoolPtr::NONE`, which is a pool without blocks, so we need no test for
//! null.

#![forbid(unsafe_code)]

use crate::{
    geometry::{Geometry, MAX_CLASSES, shape::Shape, size_class::SizeClass},
    heap::class_set::ClassSet,
    pool::{PoolPtr, State},
};

#[derive(Debug)]
pub(crate) struct UsedPools {
    /// # Invariant
    ///
    /// `heads` has one or more entries for each size class. These entries are the *slots* of the
    /// class (see `SizeClass::slot`). Every slot of a class contains the first pool in the class's
    /// list, or `PoolPtr::NONE` if the list is empty.
    ///
    /// All pools in the list of a class have this class, and are used or retained.
    heads: [PoolPtr; MAX_CLASSES],
    /// The classes whose pools become [`State::Exhausted`] instead of [`State::Full`].
    short: ClassSet,
}

impl UsedPools {
    pub(crate) const fn new() -> Self {
        Self { heads: [PoolPtr::NONE; MAX_CLASSES], short: ClassSet::EMPTY }
    }

    /// Records that there is no memory for another pool of `class`.
    ///
    /// From now on, a pool of the class that runs out of blocks becomes [`State::Exhausted`]
    /// instead of [`State::Full`].
    ///
    /// Returns false if this was already recorded.
    pub(crate) fn note_short<G: Geometry>(&mut self, class: SizeClass<G>) -> bool {
        let is_new = !self.short.contains(class);
        self.short.insert(class);
        is_new
    }

    /// Records that there is memory for more pools.
    pub(crate) fn note_ample(&mut self) {
        self.short = ClassSet::EMPTY;
    }

    /// Returns the first used pool of `class`, or [`PoolPtr::NONE`].
    #[inline]
    pub(crate) fn first<G: Geometry>(&self, class: SizeClass<G>) -> PoolPtr {
        // The remainder does not change the index, but it saves the bounds check.
        self.heads[class.slot() % MAX_CLASSES]
    }

    /// Returns the first used pool of the linked class for requests of `last + 1` bytes,
    /// or [`PoolPtr::NONE`].
    ///
    /// `last` must be less than `linked_threshold`. This function does not compute the size class
    /// of the request. It is therefore faster than [`first`](Self::first), unless `last` is a
    /// compile-time constant.
    #[inline]
    pub(crate) fn first_for<G: Geometry>(&self, last: usize) -> PoolPtr {
        self.heads[(last >> Shape::<G>::SHIFT) % MAX_CLASSES]
    }

    /// Returns the first used pool of the class for requests of `last + 1` bytes.
    ///
    /// If the class has no used pool, the result is [`PoolPtr::NONE`]. If no class serves requests
    /// of this size, or if the blocks of the class are linked, the result is `None`.
    #[inline]
    pub(crate) fn first_unlinked_for<G: Geometry>(&self, last: usize) -> Option<PoolPtr> {
        Some(self.heads[SizeClass::<G>::unlinked_slot_for(last)? % MAX_CLASSES])
    }

    fn set_first<G: Geometry>(&mut self, class: SizeClass<G>, pool: PoolPtr) {
        // INVARIANT: `pool` is the first pool of `class` (the callers).
        let last = class.slot();
        self.heads[last] = pool;
        if class.slots() > 1 {
            self.heads[last + 1 - class.slots()..last].fill(pool);
        }
    }

    /// Puts `pool` at the front of its class's list. The pool must not be a span.
    ///
    /// If the previous first pool has run out of blocks, it becomes full or exhausted and leaves
    /// the list.
    pub(crate) fn push_front<G: Geometry>(&mut self, class: SizeClass<G>, pool: PoolPtr) {
        debug_assert!(!class.is_span(), "a span that is in use can be retained");
        let first = self.first(class);
        if first != PoolPtr::NONE && first.header().has_run_out::<G>() {
            self.remove_full(class, first);
        }
        self.link_first(class, pool);
    }

    /// Puts `pool` at the front of its class's list, and leaves the other pools in place.
    pub(crate) fn link_first<G: Geometry>(&mut self, class: SizeClass<G>, pool: PoolPtr) {
        let first = self.first(class);
        debug_assert!(pool.header().prev.get().is_none(), "the pool is in no list");
        if first == PoolPtr::NONE {
            pool.header().next.set(None);
        } else {
            pool.header().next.set(Some(first));
            first.header().prev.set(Some(pool));
        }
        self.set_first(class, pool);
    }

    /// Removes `pool`, which must have run out of blocks, from its class's list.
    ///
    /// Marks the pool as full, or as exhausted if there is no memory for another pool of the class.
    pub(crate) fn remove_full<G: Geometry>(&mut self, class: SizeClass<G>, pool: PoolPtr) {
        self.remove(class, pool);
        if self.short.contains(class) {
            pool.header().become_exhausted();
        } else {
            pool.header().become_full(class);
        }
    }

    /// Removes the first pool of the list, which must be a span in use, and marks it as full.
    #[inline]
    pub(crate) fn remove_first_full<G: Geometry>(&mut self, class: SizeClass<G>, span: PoolPtr) {
        debug_assert_eq!(self.first(class), span);
        let next = span.header().next.take();
        if let Some(next) = next {
            next.header().prev.set(None);
        }
        self.set_first(class, next.unwrap_or(PoolPtr::NONE));
        span.header().become_full(class);
    }

    /// Puts `pool` after the first pool of its class's list. The first pool is still used next.
    ///
    /// More blocks of `pool` may therefore be freed before `pool` is used.
    pub(crate) fn push_second<G: Geometry>(&mut self, class: SizeClass<G>, pool: PoolPtr) {
        let first = self.first(class);
        if first == PoolPtr::NONE || first.header().has_run_out::<G>() {
            return self.push_front(class, pool);
        }
        let next = first.header().next.replace(Some(pool));
        pool.header().prev.set(Some(first));
        pool.header().next.set(next);
        if let Some(next) = next {
            next.header().prev.set(Some(pool));
        }
    }

    pub(crate) fn remove<G: Geometry>(&mut self, class: SizeClass<G>, pool: PoolPtr) {
        debug_assert!(matches!(pool.header().state(), State::Used | State::Retained));
        let (prev, next) = (pool.header().prev.take(), pool.header().next.take());
        if let Some(next) = next {
            next.header().prev.set(prev);
        }
        match prev {
            Some(prev) => prev.header().next.set(next),
            None => self.set_first(class, next.unwrap_or(PoolPtr::NONE)),
        }
    }

    pub(crate) fn iter<G: Geometry>(&self, class: SizeClass<G>) -> impl Iterator<Item = PoolPtr> {
        let first = Some(self.first(class)).filter(|first| *first != PoolPtr::NONE);
        core::iter::successors(first, |pool| pool.header().next.get())
    }
}
