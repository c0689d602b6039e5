//! A depot: full magazines between threads.
//!
//! ```text
//!   thread a:  put(magazine)              thread b:  take() -> magazine
//!                   │ null → lead  (release)             ▲ lead → null  (acquire)
//!                   ▼                                    │
//!   slots:     [ null | lead | null | lead | … ]─────────┘
//! ```
//!
//! 1. A slot holds null or a whole magazine, and whoever swaps the magazine out owns it.
//! 2. A depot holds as many magazines as it has slots, and never more.
//!
//! There is no list of magazines, so nobody follows a link that another thread may change, no
//! pointer is compared after its object was reused, and no lock is held by a thread that sleeps.
//! Either operation is a few loads and one atomic exchange, and is made once for a magazine of
//! objects.
//!
//! | ordering | carries | the model that fails without it |
//! | --- | --- | --- |
//! | put: release | the links, and what the objects were used for | `a_put_without_release_is_rejected` |
//! | take: acquire | the same | `a_take_without_acquire_is_rejected` |
//! | all others: relaxed | nothing: null is no magazine, and a look at a slot is a guess | |

use core::{
    array,
    ptr::{self, NonNull},
};

use sync::atomic::{
    AtomicPtr,
    Ordering::{self, Acquire, Relaxed, Release},
};

use crate::{link::Lead, magazine::Magazine};

/// See the [module's](self) picture.
pub(crate) struct Depot<N, const SLOTS: usize> {
    /// # Invariant
    ///
    /// Each is null or the lead of a magazine that the depot owns.
    slots: [AtomicPtr<N>; SLOTS],
}

impl<N: Lead, const SLOTS: usize> Default for Depot<N, SLOTS> {
    fn default() -> Self {
        Self { slots: array::from_fn(|_| AtomicPtr::new(ptr::null_mut())) }
    }
}

impl<N: Lead, const SLOTS: usize> Depot<N, SLOTS> {
    /// A depot without magazines. (Loom's atomics are not made in constants.)
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self { slots: [const { AtomicPtr::new(ptr::null_mut()) }; SLOTS] }
    }

    /// Puts a magazine; gives it back where every slot is taken.
    pub(crate) fn put(&self, magazine: Magazine<N>) -> Result<(), Magazine<N>> {
        self.put_with(magazine, Release)
    }

    /// Takes a magazine out; `None` where no slot has one.
    pub(crate) fn take(&self) -> Option<Magazine<N>> {
        self.take_with(Acquire)
    }

    fn put_with(&self, magazine: Magazine<N>, publish: Ordering) -> Result<(), Magazine<N>> {
        let lead = magazine.into_lead();
        for slot in &self.slots {
            let free = slot.load(Relaxed).is_null();
            // INVARIANT: the magazine is the depot's if it gets the slot.
            if free
                && slot.compare_exchange(ptr::null_mut(), lead.as_ptr(), publish, Relaxed).is_ok()
            {
                return Ok(());
            }
        }
        // SAFETY: no slot took it.
        Err(unsafe { Magazine::from_lead(lead) })
    }

    fn take_with(&self, receive: Ordering) -> Option<Magazine<N>> {
        self.slots.iter().find_map(|slot| {
            if slot.load(Relaxed).is_null() {
                return None;
            }
            // SAFETY: the slot owned the magazine, and no longer has it.
            NonNull::new(slot.swap(ptr::null_mut(), receive))
                .map(|lead| unsafe { Magazine::from_lead(lead) })
        })
    }

    /// How many magazines there are, as far as this thread can tell.
    pub(crate) fn magazines(&self) -> usize {
        self.slots.iter().filter(|slot| !slot.load(Relaxed).is_null()).count()
    }
}

#[cfg(test)]
mod loom {
    use sync::{Arc, thread};

    use super::*;
    use crate::link::{
        Chain,
        node::{Node, Nodes},
    };

    type TestDepot = Depot<Node, 1>;

    /// A magazine of these nodes, each of which was in use before.
    fn magazine(nodes: impl IntoIterator<Item = NonNull<Node>>) -> Magazine<Node> {
        let (mut chain, mut count) = (Chain::EMPTY, 0);
        for node in nodes {
            // SAFETY: a model asks for a node once, and so owns it.
            unsafe {
                Node::live(node);
                chain.push(node);
            }
            count += 1;
        }
        Magazine::seal(chain, count).expect("a magazine of at least one node")
    }

    /// Opens a magazine, uses its nodes, and counts them.
    fn empty(magazine: Option<Magazine<Node>>) -> u32 {
        let Some(magazine) = magazine else { return 0 };
        let (chain, count) = magazine.open();
        // SAFETY: whoever opens a magazine owns its nodes.
        let used = chain.map(|node| unsafe { Node::live(node) }).count();
        assert_eq!(used, count as usize, "the magazine is whole");
        count
    }

    fn beside(
        depot: &Arc<TestDepot>,
        act: impl FnOnce(&TestDepot) -> u32 + Send + 'static,
    ) -> thread::JoinHandle<u32> {
        let depot = Arc::clone(depot);
        thread::spawn(move || act(&depot))
    }

    /// One thread puts a magazine of two, another takes what is there.
    fn a_put_meets_a_take(publish: Ordering, receive: Ordering) {
        let (depot, nodes) = (Arc::new(TestDepot::default()), Nodes::new());
        let taker = beside(&depot, move |depot| empty(depot.take_with(receive)));
        let full = magazine([nodes.get(0), nodes.get(1)]);
        assert!(depot.put_with(full, publish).is_ok());
        let taken = taker.join().unwrap();
        assert_eq!(taken + empty(depot.take()), 2);
    }

    #[test]
    fn a_magazine_arrives_whole() {
        sync::model(|| a_put_meets_a_take(Release, Acquire));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_put_without_release_is_rejected() {
        sync::rejected(|| a_put_meets_a_take(Relaxed, Acquire));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_take_without_acquire_is_rejected() {
        sync::rejected(|| a_put_meets_a_take(Release, Relaxed));
    }

    /// Two threads take at once where one magazine is.
    fn two_takes_meet(take: fn(&TestDepot) -> Option<Magazine<Node>>) {
        let (depot, nodes) = (Arc::new(TestDepot::default()), Nodes::new());
        assert!(depot.put(magazine([nodes.get(0)])).is_ok());
        let other = beside(&depot, move |depot| empty(take(depot)));
        let taken = empty(take(&depot));
        assert_eq!(taken + other.join().unwrap(), 1);
    }

    #[test]
    fn a_magazine_is_taken_once() {
        sync::model(|| two_takes_meet(Depot::take));
    }

    /// Empties the slot after reading it.
    fn take_in_two_steps(depot: &TestDepot) -> Option<Magazine<Node>> {
        let lead = NonNull::new(depot.slots[0].load(Acquire))?;
        depot.slots[0].store(ptr::null_mut(), Relaxed);
        // SAFETY: wrong: another thread may have read the same. Loom finds it.
        Some(unsafe { Magazine::from_lead(lead) })
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_take_in_two_steps_is_rejected() {
        sync::rejected(|| two_takes_meet(take_in_two_steps));
    }

    /// Looks at the magazine before it is its own.
    fn take_after_a_look_inside(depot: &TestDepot) -> Option<Magazine<Node>> {
        let lead = NonNull::new(depot.slots[0].load(Acquire))?;
        // SAFETY: wrong: another thread may own the lead by now. Loom finds it.
        let count = unsafe { Node::count(lead) };
        if count == 0 { None } else { depot.take() }
    }

    /// One thread takes a magazine while another takes and puts it again, which writes its count.
    fn a_take_meets_a_magazine_that_comes_back(take: fn(&TestDepot) -> Option<Magazine<Node>>) {
        let (depot, nodes) = (Arc::new(TestDepot::default()), Nodes::new());
        assert!(depot.put(magazine([nodes.get(0)])).is_ok());
        let other = beside(&depot, move |depot| empty(take(depot)));
        if let Some(full) = depot.take() {
            assert!(depot.put(magazine(full.open().0)).is_ok());
        }
        let taken = other.join().unwrap();
        assert_eq!(taken + empty(depot.take()), 1);
    }

    #[test]
    fn a_magazine_may_come_back_while_it_is_taken() {
        sync::model(|| a_take_meets_a_magazine_that_comes_back(Depot::take));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_look_inside_a_magazine_of_the_depot_is_rejected() {
        sync::rejected(|| a_take_meets_a_magazine_that_comes_back(take_after_a_look_inside));
    }

    /// Two threads put at once where one slot is.
    fn two_puts_meet(put: fn(&TestDepot, Magazine<Node>) -> Result<(), Magazine<Node>>) {
        let (depot, nodes) = (Arc::new(TestDepot::default()), Nodes::new());
        let own = nodes.clone();
        let other = beside(&depot, move |depot| empty(put(depot, magazine([own.get(1)])).err()));
        let refused = empty(put(&depot, magazine([nodes.get(0)])).err());
        let refused = refused + other.join().unwrap();
        assert_eq!((refused, empty(depot.take())), (1, 1));
    }

    #[test]
    fn a_slot_holds_one_magazine() {
        sync::model(|| two_puts_meet(Depot::put));
    }

    /// Fills the slot after reading it.
    fn put_in_two_steps(depot: &TestDepot, full: Magazine<Node>) -> Result<(), Magazine<Node>> {
        if !depot.slots[0].load(Relaxed).is_null() {
            return Err(full);
        }
        depot.slots[0].store(full.into_lead().as_ptr(), Release);
        Ok(())
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_put_in_two_steps_is_rejected() {
        sync::rejected(|| two_puts_meet(put_in_two_steps));
    }

    #[test]
    fn a_slot_serves_again_after_it_was_emptied() {
        sync::model(|| {
            let (depot, nodes) = (Arc::new(TestDepot::default()), Nodes::new());
            let other = beside(&depot, |depot| empty(depot.take()) + empty(depot.take()));
            let mut refused = 0;
            for index in 0..2 {
                refused += empty(depot.put(magazine([nodes.get(index)])).err());
            }
            assert_eq!(refused + other.join().unwrap() + empty(depot.take()), 2);
        });
    }
}
