//! A bounded stack of free objects.
//!
//! ```text
//!   newest ──► object                     the object that was put last
//!   head ────► object ─► object ─► ∅      those put before it
//!              └─ pushed − popped ─┘      at most bound − 1
//! ```
//!
//! If a `take` follows a `put`, neither call accesses the object's memory, because both use only
//! `newest`.
//!
//! Three details make the stack faster:
//!
//! - The stack does not store `popped`, the number of objects that `take` has removed from the
//!   chain at `head`. It stores `limit` instead, the value of `pushed` at which the chain is full.
//!   Incrementing `limit` both counts a hit and makes room for another object.
//! - `put` writes its object to `newest` before it checks whether the stack is full. This order is
//!   faster than the opposite one (see `benches/caches`).
//! - `take` finds an object either in `newest` or in the chain, and has one counter for each case.
//!   In both cases, it increments the counter before it removes the object. In the opposite order,
//!   the compiler would merge the two increments into one, which is slower.

use core::{cell::Cell, ptr::NonNull};

use super::{CacheStats, Chain, Link};

/// A bounded stack of free objects, which fills exactly one cache line.
#[repr(align(64))]
pub(crate) struct BoundedStack<N> {
    newest: Cell<Option<NonNull<N>>>,
    /// # Invariant
    ///
    /// The stack owns the object at `head` and every object after it, whose links are initialised.
    head: Cell<Option<NonNull<N>>>,
    /// The value of `pushed` at which the chain is full: `popped + bound − 1`.
    limit: Cell<u64>,
    pushed: Cell<u64>,
    newest_hits: Cell<u64>,
    misses: Cell<u64>,
    overflows: Cell<u64>,
    bound: u32,
}

const _: () = assert!(size_of::<BoundedStack<u8>>() == 64, "a stack fills one cache line");

impl<N: Link> BoundedStack<N> {
    /// Creates an empty stack of at most `bound` objects. Panics if `bound` is 0.
    pub(crate) const fn new(bound: u32) -> Self {
        assert!(bound > 0, "a cache must have room for at least one object");
        Self {
            newest: Cell::new(None),
            head: Cell::new(None),
            limit: Cell::new(bound as u64 - 1),
            pushed: Cell::new(0),
            newest_hits: Cell::new(0),
            misses: Cell::new(0),
            overflows: Cell::new(0),
            bound,
        }
    }

    #[inline]
    pub(crate) fn take(&self) -> Option<NonNull<N>> {
        let Some(newest) = self.newest.get() else {
            return self.pop();
        };
        self.newest_hits.set(self.newest_hits.get().wrapping_add(1));
        self.newest.set(None);
        Some(newest)
    }

    #[inline]
    fn pop(&self) -> Option<NonNull<N>> {
        let object = self.head.get()?;
        self.limit.set(self.limit.get().wrapping_add(1));
        // SAFETY: the stack owns the object, whose link is initialised (invariant of `head`).
        self.head.set(unsafe { N::next(object) });
        Some(object)
    }

    /// Adds `object` to the top of the stack, or returns it as an error if the stack is full.
    ///
    /// # Safety
    ///
    /// - `object` must be unused storage that the caller owns exclusively.
    /// - If the call succeeds, the stack becomes the owner.
    #[inline]
    pub(crate) unsafe fn put(&self, object: NonNull<N>) -> Result<(), NonNull<N>> {
        let Some(older) = self.newest.replace(Some(object)) else {
            return Ok(());
        };
        if self.pushed.get() == self.limit.get() {
            return self.refuse(older);
        }
        self.pushed.set(self.pushed.get().wrapping_add(1));
        // SAFETY: `older` was in `newest`, so the stack owns `older`, which holds no value.
        unsafe { N::set_next(older, self.head.get()) };
        // INVARIANT: the stack owns `older`, whose link has just been initialised.
        self.head.set(Some(older));
        Ok(())
    }

    /// Undoes a `put` into a full stack by moving `older` back into `newest`.
    #[cold]
    #[inline(never)]
    fn refuse(&self, older: NonNull<N>) -> Result<(), NonNull<N>> {
        self.overflows.set(self.overflows.get() + 1);
        self.newest.replace(Some(older)).map_or(Ok(()), Err)
    }

    /// Passes every object to `release`, which then owns it, and returns the number of objects.
    ///
    /// `release` may use the stack. If `release` panics, the remaining objects stay in the stack.
    pub(crate) fn clear(&self, mut release: impl FnMut(NonNull<N>)) -> u32 {
        let count = self.len();
        for cleared in 0..count {
            let Some(object) = self.discard() else { return cleared };
            release(object);
        }
        count
    }

    /// Removes and returns the object that was put last, without counting a hit.
    fn discard(&self) -> Option<NonNull<N>> {
        if let Some(newest) = self.newest.take() {
            return Some(newest);
        }
        let object = self.head.get()?;
        self.pushed.set(self.pushed.get() - 1);
        // SAFETY: the stack owns the object, whose link is initialised (invariant of `head`).
        self.head.set(unsafe { N::next(object) });
        Some(object)
    }

    /// Removes all objects without counting hits. Returns them in the order of `take`.
    pub(crate) fn drain(&self) -> (Chain<N>, u32) {
        let count = self.len();
        self.pushed.set(self.popped());
        // SAFETY: the stack owned the chain at `head`, whose links are initialised (invariant of
        // `head`), and gives it up.
        let mut chain = unsafe { Chain::from_head(self.head.take()) };
        if let Some(newest) = self.newest.take() {
            // SAFETY: the stack owned the object, and has given it up.
            unsafe { chain.push(newest) };
        }
        (chain, count)
    }

    /// Moves a chain of `count` objects into the stack, which must be empty.
    pub(crate) fn load(&self, mut chain: Chain<N>, count: u32) {
        debug_assert_eq!(self.len(), 0, "a stack must be empty before it is loaded");
        debug_assert!(count <= self.bound, "a chain must fit into the stack");
        self.newest.set(chain.pop());
        // INVARIANT: the chain owned its objects, whose links are initialised (its invariant).
        self.head.set(chain.into_head());
        self.pushed.set(self.popped() + u64::from(count.saturating_sub(1)));
    }

    pub(crate) fn count_miss(&self) {
        self.misses.set(self.misses.get() + 1);
    }

    fn len(&self) -> u32 {
        u32::from(self.newest.get().is_some()) + (self.pushed.get() - self.popped()) as u32
    }

    fn popped(&self) -> u64 {
        self.limit.get() - u64::from(self.bound - 1)
    }

    pub(crate) fn stats(&self, object_bytes: usize) -> CacheStats {
        CacheStats {
            free: self.len() as usize,
            object_bytes,
            bound: self.bound as usize,
            hits: self.newest_hits.get() + self.popped(),
            misses: self.misses.get(),
            overflows: self.overflows.get(),
        }
    }
}

#[cfg(test)]
mod tests;
