//! The free objects of one thread: a stack, and a spare magazine (a batch of free objects).
//!
//! ```text
//!   take ◄── stack ◄── spare ◄── depot        an empty stack loads the spare or one of the depot's
//!   put  ──► stack ──► spare ──► depot ──► ×  a full stack becomes the spare, the old one moves on
//! ```
//!
//! The spare ensures that a thread that alternates between `put` and `take` rarely uses the shared
//! depot.
//!
//! Source: Bonwick and Adams, "Magazines and Vmem", 2001.

use core::{cell::Cell, ptr::NonNull};

use super::{depot::Depot, magazine::Magazine};
use crate::list::{BoundedStack, CacheStats, Link};

pub(super) struct ThreadList<N> {
    pub(super) stack: BoundedStack<N>,
    spare: Cell<Option<Magazine<N>>>,
}

impl<N: Link> ThreadList<N> {
    /// Creates an empty list for magazines of `size` objects.
    pub(super) const fn new(size: u32) -> Self {
        Self { stack: BoundedStack::new(size), spare: Cell::new(None) }
    }

    /// Takes an object, after loading the spare or a magazine of the depot into the empty stack.
    pub(super) fn refill<const SLOTS: usize>(&self, depot: &Depot<N, SLOTS>) -> Option<NonNull<N>> {
        let Some(magazine) = self.spare.take().or_else(|| depot.take()) else {
            self.stack.count_miss();
            return None;
        };
        let (chain, count) = magazine.open();
        self.stack.load(chain, count);
        self.stack.take()
    }

    /// Makes the full stack the spare, moves the old spare to the depot, and pushes `object`.
    ///
    /// Returns the old spare if the depot is full.
    ///
    /// # Safety
    ///
    /// - The caller must own `object` exclusively and must not use it afterwards.
    /// - `object` must not hold a value.
    pub(super) unsafe fn spill<const SLOTS: usize>(
        &self,
        object: NonNull<N>,
        depot: &Depot<N, SLOTS>,
    ) -> Option<Magazine<N>> {
        let old = self.spare.replace(self.seal());
        let refused = old.and_then(|magazine| depot.put(magazine).err());
        // SAFETY: the caller gives up `object` (contract). The stack is empty, so it has room.
        let _ = unsafe { self.stack.put(object) };
        refused
    }

    /// Moves all objects to the depot. Passes the magazines for which the depot has no room to
    /// `release`.
    pub(super) fn hand_over<const SLOTS: usize>(
        &self,
        depot: &Depot<N, SLOTS>,
        release: impl FnMut(Magazine<N>),
    ) {
        self.magazines().filter_map(|full| depot.put(full).err()).for_each(release);
    }

    /// Empties the list. The iterator yields the spare magazine, then a magazine of all other objects.
    pub(super) fn magazines(&self) -> impl Iterator<Item = Magazine<N>> {
        [|list: &Self| list.spare.take(), Self::seal].into_iter().filter_map(|take| take(self))
    }

    fn seal(&self) -> Option<Magazine<N>> {
        let (chain, count) = self.stack.drain();
        Magazine::seal(chain, count)
    }

    pub(super) fn stats(&self, object_bytes: usize) -> CacheStats {
        let mut stats = self.stack.stats(object_bytes);
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
mod models {
    use sync::{Arc, thread};

    use super::*;
    use crate::list::testing::{Node, Nodes};

    type TestDepot = Depot<Node, 1>;

    struct Local<'d> {
        list: ThreadList<Node>,
        depot: &'d TestDepot,
        below: Cell<u32>,
    }

    impl<'d> Local<'d> {
        fn new(depot: &'d TestDepot) -> Self {
            Self { list: ThreadList::new(1), depot, below: Cell::new(0) }
        }

        fn put(&self, node: NonNull<Node>) {
            // SAFETY: a model gets each node once, and so owns it.
            unsafe {
                Node::touch(node);
                if let Err(node) = self.list.stack.put(node)
                    && let Some(refused) = self.list.spill(node, self.depot)
                {
                    self.release(refused);
                }
            }
        }

        fn release(&self, refused: Magazine<Node>) {
            self.below.set(self.below.get() + count(refused));
        }

        fn take(&self) -> u32 {
            let Some(node) = self.list.stack.take().or_else(|| self.list.refill(self.depot)) else {
                return 0;
            };
            // SAFETY: the thread owns the node that it has taken.
            unsafe { Node::touch(node) };
            1
        }

        fn end(self) -> u32 {
            self.list.hand_over(self.depot, |refused| self.release(refused));
            self.below.get()
        }
    }

    fn count(magazine: Magazine<Node>) -> u32 {
        let (chain, count) = magazine.open();
        // SAFETY: the caller of `open` owns the nodes.
        chain.for_each(|node| unsafe { Node::touch(node) });
        count
    }

    fn spawn(
        depot: &Arc<TestDepot>,
        act: impl FnOnce(Local<'_>) -> u32 + Send + 'static,
    ) -> thread::JoinHandle<u32> {
        let depot = Arc::clone(depot);
        thread::spawn(move || act(Local::new(&depot)))
    }

    #[test]
    fn every_object_has_one_owner() {
        sync::model(|| {
            let (depot, nodes) = (Arc::new(TestDepot::new()), Nodes::new());
            let taker = spawn(&depot, |local| {
                let taken = local.take() + local.take();
                taken + local.end()
            });
            let putter = Local::new(&depot);
            (0..3).for_each(|index| putter.put(nodes.get(index)));
            let below = putter.end();
            let left = depot.take().map_or(0, count);
            let elsewhere = taker.join().unwrap();
            assert_eq!(below + left + elsewhere + depot.take().map_or(0, count), 3);
        });
    }

    /// `after_the_end` gets the object that the ended thread has left in the depot.
    fn an_end_meets_a_take(after_the_end: fn(NonNull<Node>)) {
        let (depot, nodes) = (Arc::new(TestDepot::new()), Nodes::new());
        let other = spawn(&depot, |local| local.take());
        let local = Local::new(&depot);
        local.put(nodes.get(0));
        assert_eq!(local.end(), 0, "the depot has room");
        after_the_end(nodes.get(0));
        let taken = other.join().unwrap();
        assert_eq!(taken + Local::new(&depot).take(), 1);
    }

    #[test]
    fn a_thread_that_ends_leaves_its_objects_to_others() {
        sync::model(|| an_end_meets_a_take(|_| ()));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_use_of_what_was_left_behind_is_rejected() {
        // SAFETY: wrong on purpose, because the thread no longer owns the node.
        sync::rejected(|| an_end_meets_a_take(|node| unsafe { Node::touch(node) }));
    }
}
