//! The free objects of one thread. They are in a stack, and in a spare magazine between the stack
//! and the depot.
//!
//! ```text
//!   take ◄── stack ◄── spare ◄── depot        an empty stack loads the spare or one of the depot's
//!   put  ──► stack ──► spare ──► depot ──► ×  a full stack becomes the spare, the old one moves on
//! ```
//!
//! 1. Only the thread that owns the list uses the stack and the spare, so neither needs atomic
//!    operations.
//! 2. A thread visits the depot only if it has emptied or filled both the stack and the spare.
//!    Between two visits, it therefore calls `take` at least as often as a magazine has objects, or
//!    it calls `put` that often. Without the spare, a thread that alternates between calls of `put`
//!    and `take` could visit the depot again and again (Bonwick and Adams, "Magazines and Vmem",
//!    2001).
//! 3. If the depot has no empty slot for a magazine, the functions here return the magazine to
//!    their caller, which returns its storage to the allocator below.

use core::{cell::Cell, ptr::NonNull};

use super::{depot::Depot, magazine::Magazine};
use crate::list::{BoundedStack, CacheStats, Link};

/// A stack and a spare magazine. See the [module's](self) picture.
pub(super) struct ThreadList<N> {
    pub(super) stack: BoundedStack<N>,
    spare: Cell<Option<Magazine<N>>>,
}

impl<N: Link> ThreadList<N> {
    /// Makes an empty list for magazines of `size` objects.
    ///
    /// # Panics
    ///
    /// Panics if `size` is 0.
    pub(super) const fn new(size: u32) -> Self {
        Self { stack: BoundedStack::new(size), spare: Cell::new(None) }
    }

    /// Loads a magazine into the stack, which must be empty, and takes an object from the stack.
    /// The magazine is the spare or, if there is no spare, one from the depot. Returns `None` if
    /// there is no spare and the depot is empty.
    pub(super) fn refill<const SLOTS: usize>(&self, depot: &Depot<N, SLOTS>) -> Option<NonNull<N>> {
        let Some(magazine) = self.spare.take().or_else(|| depot.take()) else {
            self.stack.count_miss();
            return None;
        };
        let (chain, count) = magazine.open();
        self.stack.load(chain, count);
        self.stack.take()
    }

    /// Makes the objects of the full stack the new spare, and moves the old spare to the depot.
    /// Then puts `object` into the stack, which is empty now. If the depot has no empty slot,
    /// returns the old spare.
    ///
    /// # Safety
    ///
    /// - The caller must own `object` exclusively, and gives up that ownership.
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

    /// Moves all objects to the depot. If the depot has no empty slot for a magazine, passes that
    /// magazine to `release`.
    pub(super) fn hand_over<const SLOTS: usize>(
        &self,
        depot: &Depot<N, SLOTS>,
        release: impl FnMut(Magazine<N>),
    ) {
        self.magazines().filter_map(|full| depot.put(full).err()).for_each(release);
    }

    /// Returns an iterator over two magazines, which are the spare and a magazine made of the
    /// objects in the stack. Each magazine is removed from the list only when the iterator returns
    /// it.
    pub(super) fn magazines(&self) -> impl Iterator<Item = Magazine<N>> {
        [|list: &Self| list.spare.take(), Self::seal].into_iter().filter_map(|take| take(self))
    }

    fn seal(&self) -> Option<Magazine<N>> {
        let (chain, count) = self.stack.drain();
        Magazine::seal(chain, count)
    }

    /// Returns the figures of the stack and the spare together.
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

    /// One thread of a model. Its magazines hold one object each.
    struct Local<'d> {
        list: ThreadList<Node>,
        depot: &'d TestDepot,
        /// The number of objects that returned to the allocator below because the depot was full.
        below: Cell<u32>,
    }

    impl<'d> Local<'d> {
        fn new(depot: &'d TestDepot) -> Self {
            Self { list: ThreadList::new(1), depot, below: Cell::new(0) }
        }

        /// Uses a node that this thread owns, and then puts it.
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

        /// Takes an object and writes to it. Returns 1 if there was an object, and 0 otherwise.
        fn take(&self) -> u32 {
            let Some(node) = self.list.stack.take().or_else(|| self.list.refill(self.depot)) else {
                return 0;
            };
            // SAFETY: the thread owns the node that it has taken.
            unsafe { Node::touch(node) };
            1
        }

        /// Ends the thread. Returns the number of objects that returned to the allocator below.
        fn end(self) -> u32 {
            self.list.hand_over(self.depot, |refused| self.release(refused));
            self.below.get()
        }
    }

    /// Uses every node of a magazine, and returns the number of nodes.
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

    /// One thread puts objects while another thread takes them. Every object must end up with
    /// exactly one owner.
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

    /// One thread ends while another thread takes an object. After its end, the first thread calls
    /// `after_the_end` with the object that it has left in the depot.
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
        // SAFETY: wrong on purpose, because the thread no longer owns the node. Loom must detect
        // this.
        sync::rejected(|| an_end_meets_a_take(|node| unsafe { Node::touch(node) }));
    }
}
