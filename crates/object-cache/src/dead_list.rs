//! A bounded list of dead objects, the last one put first.
//!
//! ```text
//!   top ──► object                       the last one put, alone
//!   head ─► object ─► object ─► ∅        the rest
//!           └─ pushed − popped ─┘        at most mark: the most that were ever here
//! ```
//!
//! 1. `top`, if there is one, was put after everything behind `head`.
//! 2. Behind `head` are `pushed − popped` objects, at most `mark`, and `mark < bound`.
//! 3. Every object was put by its owner, and leaves to one owner.
//!
//! An object that is put and taken again never enters the chain: the commonest pair of operations
//! is nine instructions. A put that must move the former top into the chain asks one question,
//! whether the chain is as long as it ever was; what follows from that, the bound and the high
//! water, is settled off the fast path. What is popped is counted in `limit`, which that question
//! reads anyway, so that hits cost one addition on either path.
//!
//! A take counts before it unlinks. If the count came last on both of its paths, compilers would
//! make one addition of the two, at a place that is computed; processors that hand a stored word
//! to the next load without delay do so at constant offsets alone, and each hit would wait for
//! the count of the one before: seven cycles in place of three, on Golden Cove.

use core::{cell::Cell, ptr::NonNull};

use crate::{
    Stats,
    link::{Chain, Link},
};

/// See the [module's](self) picture. One cache line, so that an array of lists is indexed by a
/// shift, and no two lists share a line.
#[repr(align(64))]
pub(crate) struct DeadList<N> {
    top: Cell<Option<NonNull<N>>>,
    /// # Invariant
    ///
    /// From here on every object is the list's, and its link was written.
    head: Cell<Option<NonNull<N>>>,
    /// What `pushed` may be: `popped + mark`.
    limit: Cell<u64>,
    pushed: Cell<u64>,
    /// Takes that found their object on top, and [`DRAINED`] once a drain has taken something out.
    top_hits: Cell<u64>,
    mark: Cell<u32>,
    bound: u32,
    misses: Cell<u64>,
    overflows: Cell<u64>,
}

const _: () = assert!(size_of::<DeadList<u8>>() == 64, "a list is one cache line");

/// More than anybody counts to.
const DRAINED: u64 = 1 << 63;

impl<N: Link> DeadList<N> {
    /// An empty list for at most `bound` objects.
    ///
    /// # Panics
    ///
    /// Panics when `bound` is 0.
    pub(crate) const fn new(bound: u32) -> Self {
        assert!(bound > 0, "a cache keeps at least one object");
        Self {
            top: Cell::new(None),
            head: Cell::new(None),
            limit: Cell::new(0),
            pushed: Cell::new(0),
            top_hits: Cell::new(0),
            mark: Cell::new(0),
            bound,
            misses: Cell::new(0),
            overflows: Cell::new(0),
        }
    }

    /// Keeps at most `bound` objects from now on; to be called while the list is empty.
    ///
    /// # Panics
    ///
    /// Panics when `bound` is 0.
    pub(crate) const fn set_bound(&mut self, bound: u32) {
        assert!(bound > 0, "a cache keeps at least one object");
        self.bound = bound;
    }

    /// Takes the object that was put last; the caller owns it.
    #[inline]
    pub(crate) fn take(&self) -> Option<NonNull<N>> {
        let Some(top) = self.top.get() else {
            return self.pop();
        };
        self.top_hits.set(self.top_hits.get().wrapping_add(1));
        self.top.set(None);
        Some(top)
    }

    #[inline]
    fn pop(&self) -> Option<NonNull<N>> {
        let object = self.head.get()?;
        self.limit.set(self.limit.get().wrapping_add(1));
        // SAFETY: `head`'s invariant.
        self.head.set(unsafe { N::next(object) });
        Some(object)
    }

    /// Puts `object`; gives it back where the list is full.
    ///
    /// # Safety
    ///
    /// The caller owns `object`, and gives it up unless it comes back.
    #[inline]
    pub(crate) unsafe fn put(&self, object: NonNull<N>) -> Result<(), NonNull<N>> {
        match self.top.replace(Some(object)) {
            None => Ok(()),
            // SAFETY: what was on top is the list's.
            Some(under) => unsafe { self.push_under(object, under) },
        }
    }

    /// Puts what was on top in front of the chain.
    ///
    /// # Safety
    ///
    /// The list owns `under`; `newcomer` is on top.
    #[inline]
    unsafe fn push_under(&self, newcomer: NonNull<N>, under: NonNull<N>) -> Result<(), NonNull<N>> {
        if self.pushed.get() == self.limit.get() {
            // SAFETY: the caller's promise.
            return unsafe { self.push_at_mark(newcomer, under) };
        }
        self.pushed.set(self.pushed.get().wrapping_add(1));
        // SAFETY: the list owns the object.
        unsafe { N::set_next(under, self.head.get()) };
        // INVARIANT: the link was written just now.
        self.head.set(Some(under));
        Ok(())
    }

    /// The chain is as long as it ever was: raises the mark, or refuses at the bound.
    ///
    /// # Safety
    ///
    /// As for [`push_under`](Self::push_under).
    #[cold]
    #[inline(never)]
    unsafe fn push_at_mark(
        &self,
        newcomer: NonNull<N>,
        under: NonNull<N>,
    ) -> Result<(), NonNull<N>> {
        if self.mark.get() + 1 >= self.bound {
            self.top.set(Some(under));
            self.overflows.set(self.overflows.get() + 1);
            return Err(newcomer);
        }
        self.mark.set(self.mark.get() + 1);
        self.limit.set(self.limit.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { self.push_under(newcomer, under) }
    }

    /// Takes out the objects that are in the list now, one at a time, and calls `down` with each.
    /// Returns their number.
    ///
    /// `down` may use the list, or panic. Objects that it was not called with stay in the list.
    pub(crate) fn clear(&self, mut down: impl FnMut(NonNull<N>)) -> u32 {
        let count = self.len();
        for cleared in 0..count {
            let Some(object) = self.discard() else { return cleared };
            down(object);
        }
        count
    }

    /// Takes the object that was put last, and counts no hit, because nobody will use it.
    fn discard(&self) -> Option<NonNull<N>> {
        if let Some(top) = self.top.take() {
            self.top_hits.set(self.top_hits.get() | DRAINED);
            return Some(top);
        }
        let object = self.head.get()?;
        // As if it had never been pushed: it was not a hit.
        self.pushed.set(self.pushed.get().wrapping_sub(1));
        // SAFETY: `head`'s invariant.
        self.head.set(unsafe { N::next(object) });
        Some(object)
    }

    /// Takes everything out, in the order in which it would be taken, and says how much it is.
    pub(crate) fn drain(&self) -> (Chain<N>, u32) {
        let count = self.len();
        if count > 0 {
            self.top_hits.set(self.top_hits.get() | DRAINED);
        }
        // SAFETY: `head`'s invariant; the list gives the chain up in the next line.
        let mut chain = unsafe { Chain::from_head(self.head.take()) };
        // As if the rest had never been pushed: none of it was a hit.
        self.pushed.set(self.popped());
        if let Some(top) = self.top.take() {
            // SAFETY: what was on top is the list's.
            unsafe { chain.push(top) };
        }
        (chain, count)
    }

    /// Puts a chain of `count` objects into the list, which is empty.
    pub(crate) fn load(&self, mut chain: Chain<N>, count: u32) {
        debug_assert_eq!(self.len(), 0, "the list is empty");
        debug_assert!(count <= self.bound, "the chain fits");
        self.top.set(chain.pop());
        // INVARIANT: a chain keeps the same rule.
        self.head.set(chain.into_head());
        let under = count.saturating_sub(1);
        let popped = self.popped();
        self.pushed.set(popped + u64::from(under));
        self.mark.set(self.mark.get().max(under));
        self.limit.set(popped + u64::from(self.mark.get()));
    }

    /// Counts a take that found nothing.
    pub(crate) fn missed(&self) {
        self.misses.set(self.misses.get() + 1);
    }

    /// How many objects there are.
    pub(crate) fn len(&self) -> u32 {
        u32::from(self.top.get().is_some()) + (self.pushed.get() - self.popped()) as u32
    }

    fn popped(&self) -> u64 {
        self.limit.get() - u64::from(self.mark.get())
    }

    fn hits(&self) -> u64 {
        (self.top_hits.get() & !DRAINED) + self.popped()
    }

    fn high_water(&self) -> u32 {
        // One object that never had another under it leaves no mark.
        let ever = self.top.get().is_some() || self.top_hits.get() > 0;
        if self.mark.get() > 0 { self.mark.get() + 1 } else { u32::from(ever) }
    }

    /// The figures, for objects of `object_bytes`.
    pub(crate) fn stats(&self, object_bytes: usize) -> Stats {
        Stats {
            free: self.len() as usize,
            object_bytes,
            bound: self.bound as usize,
            hits: self.hits(),
            misses: self.misses.get(),
            overflows: self.overflows.get(),
            high_water: self.high_water() as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Dead;

    type Words = [[u64; 2]; 5];

    /// Hands five dead objects to `body`, with a list for at most `bound` of them.
    fn with_list(bound: u32, body: impl FnOnce(&DeadList<Dead>, [NonNull<Dead>; 5])) {
        let mut words = Words::default();
        let start = NonNull::from(&mut words).cast::<[u64; 2]>();
        let list = DeadList::new(bound);
        // SAFETY: there are five objects from `start` on.
        body(&list, [0, 1, 2, 3, 4].map(|index| unsafe { start.add(index) }.cast()));
    }

    fn put(list: &DeadList<Dead>, object: NonNull<Dead>) -> bool {
        // SAFETY: the objects of these tests hold no values.
        unsafe { list.put(object) }.is_ok()
    }

    fn take_all(list: &DeadList<Dead>) -> std::vec::Vec<NonNull<Dead>> {
        core::iter::from_fn(|| list.take()).collect()
    }

    #[test]
    fn the_last_one_put_is_taken_first() {
        with_list(5, |list, objects| {
            assert!(objects.iter().all(|&object| put(list, object)));
            assert_eq!(list.take(), Some(objects[4]));
            assert!(put(list, objects[4]));
            assert!(take_all(list).iter().eq(objects.iter().rev()));
        });
    }

    #[test]
    fn a_full_list_gives_the_newcomer_back() {
        with_list(3, |list, objects| {
            assert_eq!(objects.map(|object| put(list, object)), [true, true, true, false, false]);
            assert_eq!(take_all(list), [objects[2], objects[1], objects[0]]);
            assert_eq!(list.stats(16).overflows, 2);
        });
    }

    #[test]
    fn a_list_for_one_object_keeps_one() {
        with_list(1, |list, objects| {
            assert!(put(list, objects[0]));
            assert!(!put(list, objects[1]));
            assert_eq!(take_all(list), [objects[0]]);
        });
    }

    #[test]
    fn the_high_water_is_the_most_that_were_there_at_once() {
        with_list(5, |list, objects| {
            assert_eq!(list.stats(16).high_water, 0);
            put(list, objects[0]);
            assert_eq!(list.stats(16).high_water, 1);
            objects[1..3].iter().for_each(|&object| assert!(put(list, object)));
            take_all(list);
            put(list, objects[0]);
            assert_eq!((list.stats(16).high_water, list.stats(16).free), (3, 1));
        });
    }

    #[test]
    fn draining_one_object_leaves_its_high_water() {
        with_list(5, |list, objects| {
            put(list, objects[0]);
            let (chain, count) = list.drain();
            assert_eq!((chain.count(), count), (1, 1));
            assert_eq!((list.stats(16).high_water, list.stats(16).free), (1, 0));
        });
    }

    #[test]
    fn a_cleared_list_counts_no_hits_and_keeps_its_high_water() {
        with_list(5, |list, objects| {
            objects.iter().for_each(|&object| assert!(put(list, object)));
            let mut cleared = std::vec::Vec::new();
            assert_eq!(list.clear(|object| cleared.push(object)), 5);
            assert!(cleared.iter().eq(objects.iter().rev()));
            let stats = list.stats(16);
            assert_eq!((stats.free, stats.hits, stats.high_water), (0, 0, 5));
            objects.iter().for_each(|&object| assert!(put(list, object)));
            assert_eq!((take_all(list).len(), list.stats(16).hits), (5, 5));
        });
    }

    #[test]
    fn clearing_ends_though_objects_are_put_meanwhile() {
        with_list(5, |list, objects| {
            objects[..2].iter().for_each(|&object| assert!(put(list, object)));
            assert_eq!(list.clear(|object| assert!(put(list, object))), 2);
            assert_eq!(list.len(), 2);
        });
    }

    #[test]
    fn a_drained_list_is_loaded_in_the_same_order() {
        with_list(5, |list, objects| {
            objects.iter().for_each(|&object| assert!(put(list, object)));
            let (chain, count) = list.drain();
            list.load(chain, count);
            assert_eq!(list.len(), 5);
            assert!(!put(list, objects[0]), "the bound holds after loading");
            assert!(take_all(list).iter().eq(objects.iter().rev()));
            assert_eq!(list.len(), 0);
        });
    }

    #[test]
    fn every_take_that_finds_an_object_is_a_hit() {
        with_list(5, |list, objects| {
            objects.iter().for_each(|&object| assert!(put(list, object)));
            take_all(list);
            list.missed();
            assert_eq!((list.stats(16).hits, list.stats(16).misses), (5, 1));
        });
    }

    #[test]
    #[should_panic(expected = "at least one object")]
    fn a_bound_of_zero_is_refused() {
        DeadList::<Dead>::new(0);
    }
}
