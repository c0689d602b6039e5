//! One thread's dead objects, between a hot list and a depot.
//!
//! ```text
//!   take ◄── list ◄── spare ◄── depot        an empty list opens the spare, then one of the depot's
//!   put  ──► list ──► spare ──► depot ──► ×  a full list becomes the spare, the old one the depot's
//! ```
//!
//! 1. The list and the spare are one thread's alone: no atomics on either.
//! 2. Between two visits to the depot lie at least as many takes, or puts, as a magazine holds:
//!    with one magazine in each hand, a thread that takes and puts in turn never pays for the
//!    edge. (Bonwick and Adams, "Magazines and Vmem", 2001.)
//! 3. A magazine that the depot has no slot for is the caller's, who gives it down.

use core::{cell::Cell, ptr::NonNull};

use crate::{dead_list::DeadList, depot::Depot, link::Lead, magazine::Magazine};

/// See the [module's](self) picture.
pub(crate) struct ThreadList<N> {
    list: DeadList<N>,
    spare: Cell<Option<Magazine<N>>>,
}

impl<N: Lead> ThreadList<N> {
    /// Empty hands, for magazines of `size` objects.
    ///
    /// # Panics
    ///
    /// Panics when `size` is 0.
    pub(crate) const fn new(size: u32) -> Self {
        Self { list: DeadList::new(size), spare: Cell::new(None) }
    }

    /// Takes an object that is at hand.
    #[inline]
    pub(crate) fn take(&self) -> Option<NonNull<N>> {
        self.list.take()
    }

    /// The list is empty: opens another magazine and takes from it.
    pub(crate) fn refill<const SLOTS: usize>(&self, depot: &Depot<N, SLOTS>) -> Option<NonNull<N>> {
        let Some(magazine) = self.spare.take().or_else(|| depot.take()) else {
            self.list.missed();
            return None;
        };
        let (chain, count) = magazine.open();
        self.list.load(chain, count);
        self.list.take()
    }

    /// Puts an object; gives it back where the list is full.
    ///
    /// # Safety
    ///
    /// The caller owns `object`, and gives it up unless it comes back.
    #[inline]
    pub(crate) unsafe fn put(&self, object: NonNull<N>) -> Result<(), NonNull<N>> {
        // SAFETY: the caller's promise.
        unsafe { self.list.put(object) }
    }

    /// The list is full: makes it the spare, the old spare the depot's, and puts `object`.
    /// Returns the magazine that the depot has no slot for.
    ///
    /// # Safety
    ///
    /// The caller owns `object`, and gives it up.
    pub(crate) unsafe fn spill<const SLOTS: usize>(
        &self,
        object: NonNull<N>,
        depot: &Depot<N, SLOTS>,
    ) -> Option<Magazine<N>> {
        let old = self.spare.replace(self.seal());
        let over = old.and_then(|magazine| depot.put(magazine).err());
        // SAFETY: the caller's promise. An empty list has room.
        let _ = unsafe { self.list.put(object) };
        over
    }

    /// Empties both hands into the depot. Calls `down` with what it has no slot for.
    pub(crate) fn hand_over<const SLOTS: usize>(
        &self,
        depot: &Depot<N, SLOTS>,
        down: impl FnMut(Magazine<N>),
    ) {
        self.magazines().filter_map(|full| depot.put(full).err()).for_each(down);
    }

    /// Yields the spare magazine, then one with the contents of the list. Neither is taken out
    /// before the iterator reaches it.
    pub(crate) fn magazines(&self) -> impl Iterator<Item = Magazine<N>> {
        [|list: &Self| list.spare.take(), Self::seal].into_iter().filter_map(|take| take(self))
    }

    fn seal(&self) -> Option<Magazine<N>> {
        let (chain, count) = self.list.drain();
        Magazine::seal(chain, count)
    }

    /// The list's figures; the spare's objects count as free.
    pub(crate) fn stats(&self, object_bytes: usize) -> crate::Stats {
        let mut stats = self.list.stats(object_bytes);
        if let Some(spare) = self.spare.take() {
            let (chain, count) = spare.open();
            stats.free += count as usize;
            self.spare.set(Magazine::seal(chain, count));
        }
        stats.bound *= 2;
        stats
    }
}

#[cfg(test)]
mod loom {
    use sync::{Arc, thread};

    use super::*;
    use crate::link::node::{Node, Nodes};

    type TestDepot = Depot<Node, 1>;

    /// A thread's hands, with magazines of one object.
    struct Hands<'d> {
        list: ThreadList<Node>,
        depot: &'d TestDepot,
        /// Objects that went down because the depot was full.
        below: Cell<u32>,
    }

    impl<'d> Hands<'d> {
        fn new(depot: &'d TestDepot) -> Self {
            Self { list: ThreadList::new(1), depot, below: Cell::new(0) }
        }

        /// Ends the life of a node that this thread owns.
        fn put(&self, node: NonNull<Node>) {
            // SAFETY: a model asks for a node once, and so owns it.
            unsafe {
                Node::live(node);
                if let Err(node) = self.list.put(node)
                    && let Some(over) = self.list.spill(node, self.depot)
                {
                    self.give_down(over);
                }
            }
        }

        fn give_down(&self, over: Magazine<Node>) {
            self.below.set(self.below.get() + count(over));
        }

        /// Takes an object and uses it; 1 if there was one.
        fn take(&self) -> u32 {
            let Some(node) = self.list.take().or_else(|| self.list.refill(self.depot)) else {
                return 0;
            };
            // SAFETY: what was taken is ours.
            unsafe { Node::live(node) };
            1
        }

        /// The thread ends. Says how many objects went down in all.
        fn end(self) -> u32 {
            self.list.hand_over(self.depot, |over| self.give_down(over));
            self.below.get()
        }
    }

    /// Uses the nodes of a magazine, and counts them.
    fn count(magazine: Magazine<Node>) -> u32 {
        let (chain, count) = magazine.open();
        // SAFETY: whoever opens a magazine owns its nodes.
        chain.for_each(|node| unsafe { Node::live(node) });
        count
    }

    fn beside(
        depot: &Arc<TestDepot>,
        act: impl FnOnce(Hands<'_>) -> u32 + Send + 'static,
    ) -> thread::JoinHandle<u32> {
        let depot = Arc::clone(depot);
        thread::spawn(move || act(Hands::new(&depot)))
    }

    /// One thread ends objects that another makes again.
    #[test]
    fn every_object_is_in_one_hand() {
        sync::model(|| {
            let (depot, nodes) = (Arc::new(TestDepot::default()), Nodes::new());
            let maker = beside(&depot, |hands| {
                let made = hands.take() + hands.take();
                made + hands.end()
            });
            let ender = Hands::new(&depot);
            (0..3).for_each(|index| ender.put(nodes.get(index)));
            let below = ender.end();
            let left = depot.take().map_or(0, count);
            let elsewhere = maker.join().unwrap();
            assert_eq!(below + left + elsewhere + depot.take().map_or(0, count), 3);
        });
    }

    /// One thread ends while another looks for objects.
    fn an_end_meets_a_take(after_the_end: fn(NonNull<Node>)) {
        let (depot, nodes) = (Arc::new(TestDepot::default()), Nodes::new());
        let other = beside(&depot, |hands| hands.take());
        let hands = Hands::new(&depot);
        hands.put(nodes.get(0));
        assert_eq!(hands.end(), 0, "the depot has room");
        after_the_end(nodes.get(0));
        let taken = other.join().unwrap();
        assert_eq!(taken + Hands::new(&depot).take(), 1);
    }

    #[test]
    fn a_thread_that_ends_leaves_its_objects_to_others() {
        sync::model(|| an_end_meets_a_take(|_| ()));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_use_of_what_was_left_behind_is_rejected() {
        // SAFETY: wrong: the node is no longer this thread's. Loom finds it.
        sync::rejected(|| an_end_meets_a_take(|node| unsafe { Node::live(node) }));
    }
}
