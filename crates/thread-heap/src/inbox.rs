//! The blocks that other threads freed: many push, the owner takes all; and who the owner is.
//!
//! One word says both:
//!
//! ```text
//!                    push                       take_all
//!     null ─────────────────────► node ► node ─────────────► null
//!      │ ▲                        (owned, something is here)
//!      │ │ adopt, or a push that finds nobody
//!      ▼ │
//!   ABANDONED   (nobody's, and nothing is here)
//! ```
//!
//! An owner can abandon only while nothing is here, in the same step that says so. So a push either
//! lands before that and stops it, or finds the heap abandoned and makes the pusher its owner: no
//! block is ever left in an inbox that nobody owns.
//!
//! Any thread may [take over](Inbox::take_over) what waits here, because the owner regards those
//! blocks as in use. The thread must push all of them back. It may do so in another form.

use std::ptr;

use sync::atomic::{
    AtomicPtr, AtomicUsize,
    Ordering::{self, Acquire, Relaxed, Release},
};

use crate::link::{Chain, Link, Nodes};

/// The orderings of an inbox's operations, so that a test can show which are too weak.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Orders {
    push: Ordering,
    take: Ordering,
    take_over: Ordering,
    abandon: Ordering,
    adopt: Ordering,
}

impl Orders {
    const SOUND: Self =
        Self { push: Release, take: Acquire, take_over: Acquire, abandon: Release, adopt: Acquire };
}

/// Freed blocks on their way home.
#[derive(Debug)]
pub(crate) struct Inbox<N> {
    /// # Invariant
    ///
    /// Null or [`abandoned`], or a node from which links lead to null; those nodes are the inbox's.
    head: AtomicPtr<N>,
    /// The bytes that were [counted](Inbox::count) since the inbox was last emptied. No memory
    /// access depends on this number, so it may be too high while threads race.
    waiting: AtomicUsize,
}

/// The head of an inbox that nobody owns. No node is at this address: nodes are aligned.
fn abandoned<N>() -> *mut N {
    const { assert!(align_of::<N>() > 1) };
    ptr::without_provenance_mut(1)
}

impl<N: Link> Inbox<N> {
    sync::const_unless_model! {
        /// The empty inbox of a heap that has an owner.
        pub(crate) fn new() -> Self {
            Self { head: AtomicPtr::new(ptr::null_mut()), waiting: AtomicUsize::new(0) }
        }
    }

    /// Puts the nodes of `chain` here, for the owner to find.
    ///
    /// If nobody owns the heap, the caller owns it from now on and gets the chain back: it must
    /// see to the nodes and then [`abandon`](Self::abandon) the heap, or keep it.
    #[must_use = "a chain that comes back makes its holder the owner"]
    pub(crate) fn push(&self, chain: Chain<N>) -> Option<Chain<N>> {
        self.push_with(Orders::SOUND, chain)
    }

    #[inline]
    fn push_with(&self, orders: Orders, chain: Chain<N>) -> Option<Chain<N>> {
        let mut head = self.head.load(Relaxed);
        loop {
            if head == abandoned() {
                match self.own(orders, head) {
                    Ok(()) => return Some(chain),
                    Err(now) => head = now,
                }
            } else {
                chain.set_rest(head);
                let first = chain.first().as_ptr();
                // INVARIANT: the chain was given away, and its last node links to the old head.
                match self.head.compare_exchange_weak(head, first, orders.push, Relaxed) {
                    Ok(_) => return None,
                    Err(now) => head = now,
                }
            }
        }
    }

    /// Takes everything that is here. For the owner.
    #[inline]
    pub(crate) fn take_all(&self) -> Nodes<N> {
        self.take_all_with(Orders::SOUND)
    }

    #[inline]
    fn take_all_with(&self, orders: Orders) -> Nodes<N> {
        let mut first = self.head.load(Relaxed);
        if !first.is_null() {
            // Before the swap, so that a push after the swap stays counted.
            self.waiting.store(0, Relaxed);
            // INVARIANT: null, for an owned heap.
            first = self.head.swap(ptr::null_mut(), orders.take);
        }
        debug_assert_ne!(first, abandoned(), "only an owner takes");
        // SAFETY: the invariant: the nodes were the inbox's, and it has given them away.
        unsafe { Nodes::from_first(first) }
    }

    /// Takes everything that is here, for a thread that need not be the owner, and that must push
    /// it all back. Returns `None` if nothing is here or nobody owns the heap.
    #[must_use = "nodes that are not pushed back are lost"]
    pub(crate) fn take_over(&self) -> Option<Nodes<N>> {
        self.take_over_with(Orders::SOUND)
    }

    fn take_over_with(&self, orders: Orders) -> Option<Nodes<N>> {
        let mut head = self.head.load(Relaxed);
        // A swap would do for the nodes, but it could make an abandoned heap look owned.
        while !head.is_null() && head != abandoned() {
            // INVARIANT: null, for an owned heap.
            let outcome =
                self.head.compare_exchange_weak(head, ptr::null_mut(), orders.take_over, Relaxed);
            match outcome {
                // SAFETY: the invariant: the nodes were the inbox's, and it has given them away.
                Ok(first) => return Some(unsafe { Nodes::from_first(first) }),
                Err(now) => head = now,
            }
        }
        None
    }

    /// Counts `bytes` that were pushed. Returns true if the count has passed a multiple of `step`.
    #[inline]
    pub(crate) fn count(&self, bytes: usize, step: usize) -> bool {
        let before = self.waiting.fetch_add(bytes, Relaxed);
        before / step != before.wrapping_add(bytes) / step
    }

    /// Returns about how many bytes have been pushed since the inbox was last emptied.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Starts the count of waiting bytes at zero, and returns the count before.
    pub(crate) fn restart_count(&self) -> usize {
        self.waiting.swap(0, Relaxed)
    }

    /// Leaves the heap without an owner. False, and the caller is still the owner, if something
    /// is here.
    #[must_use]
    pub(crate) fn abandon(&self) -> bool {
        self.abandon_with(Orders::SOUND)
    }

    #[inline]
    fn abandon_with(&self, orders: Orders) -> bool {
        let order = orders.abandon;
        self.head.compare_exchange(ptr::null_mut(), abandoned(), order, Relaxed).is_ok()
    }

    /// Makes the caller the owner, if nobody is.
    #[must_use]
    pub(crate) fn adopt(&self) -> bool {
        self.adopt_with(Orders::SOUND)
    }

    #[inline]
    fn adopt_with(&self, orders: Orders) -> bool {
        let head = self.head.load(Relaxed);
        head == abandoned() && self.own(orders, head).is_ok()
    }

    #[inline]
    fn own(&self, orders: Orders, abandoned: *mut N) -> Result<(), *mut N> {
        let order = orders.adopt;
        self.head.compare_exchange(abandoned, ptr::null_mut(), order, Relaxed).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use std::ptr::NonNull;

    use sync::{Arc, UnsafeCell, thread};

    use super::*;

    /// A node as loom sees it: its link and its contents are cells.
    struct Node {
        next: UnsafeCell<*mut Node>,
        contents: UnsafeCell<u32>,
    }

    // SAFETY: the link is read from where it is written.
    unsafe impl Link for Node {
        unsafe fn next(node: NonNull<Self>) -> *mut Self {
            // SAFETY: the caller's own node.
            unsafe { node.as_ref() }.next.with(|next| unsafe { *next })
        }

        unsafe fn set_next(node: NonNull<Self>, next: *mut Self) {
            // SAFETY: the caller's own node.
            unsafe { node.as_ref() }.next.with_mut(|place| unsafe { *place = next });
        }
    }

    impl<N: Link> Inbox<N> {
        /// Looks whether anybody owns the heap, and then says that the caller does: wrong, because
        /// another may do the same between the two.
        pub(crate) fn adopt_in_two_steps(&self) -> bool {
            let free = self.head.load(Acquire) == abandoned();
            if free {
                self.head.store(ptr::null_mut(), Release);
            }
            free
        }
    }

    /// A heap as the protocol sees it: an inbox, and something that only the owner may touch.
    struct Owned {
        inbox: Inbox<Node>,
        orders: Orders,
        /// The sum of the contents of all nodes that came home.
        home: UnsafeCell<u32>,
    }

    // SAFETY: `home` is touched by the owner alone, which is what the models show.
    unsafe impl Send for Owned {}
    // SAFETY: as above.
    unsafe impl Sync for Owned {}

    impl Owned {
        fn new(orders: Orders) -> Arc<Self> {
            Arc::new(Self { inbox: Inbox::new(), orders, home: UnsafeCell::new(0) })
        }

        fn bring_home(&self, nodes: Nodes<Node>) {
            for node in nodes {
                // SAFETY: a node that comes out belongs to whoever takes it; it was boxed.
                let node = unsafe { Box::from_raw(node.as_ptr()) };
                // SAFETY: the node is ours.
                let contents = node.contents.with(|contents| unsafe { *contents });
                // SAFETY: only the owner calls this.
                self.home.with_mut(|home| unsafe { *home += contents });
            }
        }

        fn free(&self, contents: u32) {
            self.free_chain(chain(contents));
        }

        fn free_chain(&self, chain: Chain<Node>) {
            if let Some(chain) = self.inbox.push_with(self.orders, chain) {
                self.bring_home(chain.into_nodes());
                self.close();
            }
        }

        fn close(&self) {
            while !self.inbox.abandon_with(self.orders) {
                self.take_home();
            }
        }

        fn take_home(&self) {
            self.bring_home(self.inbox.take_all_with(self.orders));
        }

        /// Takes the inbox over, adds 100 to the contents of each node, and pushes it back.
        fn take_over(&self) {
            let Some(nodes) = self.inbox.take_over_with(self.orders) else { return };
            self.change_and_push_back(nodes);
        }

        fn change_and_push_back(&self, nodes: Nodes<Node>) {
            for node in nodes {
                // SAFETY: the thread that took the nodes over owns them.
                let contents = unsafe { &node.as_ref().contents };
                // SAFETY: as above.
                contents.with_mut(|contents| unsafe { *contents += 100 });
                // SAFETY: the node is ours, and given away.
                self.free_chain(unsafe { Chain::of(node) });
            }
        }

        fn adopt(&self) -> bool {
            self.inbox.adopt_with(self.orders)
        }

        /// What an owner does to its heap.
        fn work(&self) {
            // SAFETY: only the owner calls this.
            self.home.with_mut(|home| unsafe { *home += 10 });
        }

        fn home(&self) -> u32 {
            // SAFETY: only the owner calls this.
            self.home.with(|home| unsafe { *home })
        }
    }

    fn chain(contents: u32) -> Chain<Node> {
        // SAFETY: the node is ours, and given away.
        unsafe { Chain::of(node(contents)) }
    }

    fn node(contents: u32) -> NonNull<Node> {
        let node =
            Box::new(Node { next: UnsafeCell::new(ptr::null_mut()), contents: UnsafeCell::new(0) });
        // Written apart from the making, as a block is.
        // SAFETY: the node is ours.
        node.contents.with_mut(|place| unsafe { *place = contents });
        NonNull::from(Box::leak(node))
    }

    fn spawn(owned: &Arc<Owned>, act: impl FnOnce(&Owned) + Send + 'static) -> impl FnOnce() {
        let owned = Arc::clone(owned);
        let thread = thread::spawn(move || act(&owned));
        move || thread.join().unwrap()
    }

    /// Two nodes are freed one after the other while the owner takes what is there.
    fn two_frees_meet_an_owner(orders: Orders) {
        two_frees_meet_a_take(orders, Owned::take_home);
    }

    fn two_frees_meet_a_take(orders: Orders, take_home: fn(&Owned)) {
        let owned = Owned::new(orders);
        let owner = spawn(&owned, take_home);
        owned.free(1);
        owned.free(2);
        owner();
        owned.take_home();
        assert_eq!(owned.home(), 3);
    }

    #[test]
    fn every_remote_free_reaches_the_owner_once_with_its_contents() {
        sync::model(|| two_frees_meet_an_owner(Orders::SOUND));
    }

    #[test]
    fn nodes_that_were_sent_together_arrive_together() {
        sync::model(|| {
            let owned = Owned::new(Orders::SOUND);
            let owner = spawn(&owned, |owned| {
                owned.take_home();
                assert!([0, 3].contains(&owned.home()));
            });
            let mut both = chain(1);
            // SAFETY: the node is ours, and given away.
            unsafe { both.push(node(2)) };
            owned.free_chain(both);
            owner();
            owned.take_home();
            assert_eq!(owned.home(), 3);
        });
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_push_without_release_is_rejected() {
        sync::rejected(|| two_frees_meet_an_owner(Orders { push: Relaxed, ..Orders::SOUND }));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_take_without_acquire_is_rejected() {
        sync::rejected(|| two_frees_meet_an_owner(Orders { take: Relaxed, ..Orders::SOUND }));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_take_in_two_steps_is_rejected() {
        sync::rejected(|| {
            two_frees_meet_a_take(Orders::SOUND, |owned| {
                let first = owned.inbox.head.load(Acquire);
                owned.inbox.head.store(ptr::null_mut(), Release);
                // SAFETY: not all of them are the inbox's any more, which is what is wrong.
                owned.bring_home(unsafe { Nodes::from_first(first) });
            });
        });
    }

    /// Two threads free by `push` while the owner takes what is there.
    fn two_pushes_meet_an_owner(push: fn(&Owned, Chain<Node>)) {
        let owned = Owned::new(Orders::SOUND);
        let freers =
            [1, 2].map(|contents| spawn(&owned, move |owned| push(owned, chain(contents))));
        owned.take_home();
        freers.into_iter().for_each(|freer| freer());
        owned.take_home();
        assert_eq!(owned.home(), 3);
    }

    #[test]
    fn two_threads_free_into_one_inbox_while_the_owner_takes_it() {
        sync::model(|| two_pushes_meet_an_owner(Owned::free_chain));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_push_in_two_steps_is_rejected() {
        sync::rejected(|| {
            two_pushes_meet_an_owner(|owned, chain| {
                chain.set_rest(owned.inbox.head.load(Acquire));
                owned.inbox.head.store(chain.first().as_ptr(), Release);
            });
        });
    }

    /// The owner ends while its last block is freed elsewhere.
    fn the_last_free_meets_the_owners_end(orders: Orders) {
        let owned = Owned::new(orders);
        let ending = spawn(&owned, |owned| {
            owned.work();
            owned.close();
        });
        owned.free(1);
        ending();
        assert!(owned.adopt(), "somebody closed it last");
        assert_eq!(owned.home(), 11);
    }

    #[test]
    fn the_last_remote_free_may_race_with_the_owners_end() {
        sync::model(|| the_last_free_meets_the_owners_end(Orders::SOUND));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn an_abandonment_without_release_is_rejected() {
        sync::rejected(|| {
            the_last_free_meets_the_owners_end(Orders { abandon: Relaxed, ..Orders::SOUND });
        });
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn an_adoption_without_acquire_is_rejected() {
        sync::rejected(|| {
            the_last_free_meets_the_owners_end(Orders { adopt: Relaxed, ..Orders::SOUND });
        });
    }

    /// An end in two steps: it looks whether something is here, and then says that nobody owns it.
    fn close_in_two_steps(owned: &Owned) {
        owned.take_home();
        if owned.inbox.head.load(Acquire).is_null() {
            owned.inbox.head.store(abandoned(), Release);
        }
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn an_abandonment_in_two_steps_is_rejected() {
        sync::rejected(|| {
            let owned = Owned::new(Orders::SOUND);
            let freer = spawn(&owned, |owned| owned.free(1));
            close_in_two_steps(&owned);
            freer();
            if owned.adopt() {
                assert_eq!(owned.home(), 1);
            } else {
                owned.take_home();
                assert_eq!(owned.home(), 1);
            }
        });
    }

    fn two_adopt(adopt: fn(&Inbox<Node>) -> bool) {
        let owned = Owned::new(Orders::SOUND);
        owned.close();
        let adopt_and_use = move |owned: &Owned| {
            if adopt(&owned.inbox) {
                owned.work();
                owned.close();
            }
        };
        let adopter = spawn(&owned, adopt_and_use);
        adopt_and_use(&owned);
        adopter();
        assert!(owned.adopt());
        assert!([10, 20].contains(&owned.home()));
    }

    #[test]
    fn two_threads_that_adopt_one_heap_do_not_both_get_it() {
        sync::model(|| two_adopt(Inbox::adopt));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn an_adoption_in_two_steps_is_rejected() {
        sync::rejected(|| two_adopt(Inbox::adopt_in_two_steps));
    }

    #[test]
    fn an_adopter_and_a_remote_free_do_not_both_own_the_heap() {
        sync::model(|| {
            let owned = Owned::new(Orders::SOUND);
            owned.close();
            let freer = spawn(&owned, |owned| owned.free(1));
            if owned.adopt() {
                owned.take_home();
                owned.close();
            }
            freer();
            assert!(owned.adopt());
            assert_eq!(owned.home(), 1);
        });
    }

    /// An inbox with one node, which is taken over while its owner takes it home.
    fn a_takeover_meets_the_owner(orders: Orders) {
        let owned = Owned::new(orders);
        let freer = spawn(&owned, |owned| owned.free(1));
        let taker = spawn(&owned, Owned::take_over);
        owned.take_home();
        freer();
        taker();
        owned.take_home();
        assert!([1, 101].contains(&owned.home()));
    }

    #[test]
    fn an_inbox_is_taken_over_while_a_sender_pushes_and_the_owner_takes() {
        sync::model(|| a_takeover_meets_the_owner(Orders::SOUND));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_takeover_without_acquire_is_rejected() {
        sync::rejected(|| {
            a_takeover_meets_the_owner(Orders { take_over: Relaxed, ..Orders::SOUND });
        });
    }

    /// A node that was pushed is taken over and pushed back with `back`, while the owner takes it.
    fn the_owner_takes_what_was_taken_over(back: Orders) {
        let owned = Owned::new(Orders::SOUND);
        owned.free(1);
        let owner = spawn(&owned, Owned::take_home);
        if let Some(nodes) = owned.inbox.take_over() {
            for node in nodes {
                // SAFETY: the thread that took the nodes over owns them.
                let contents = unsafe { &node.as_ref().contents };
                // SAFETY: as above.
                contents.with_mut(|contents| unsafe { *contents += 100 });
                // SAFETY: the node is ours, and given away.
                let chain = unsafe { Chain::of(node) };
                assert!(owned.inbox.push_with(back, chain).is_none());
            }
        }
        owner();
        owned.take_home();
        assert!([1, 101].contains(&owned.home()));
    }

    #[test]
    fn the_owner_sees_what_a_takeover_changed() {
        sync::model(|| the_owner_takes_what_was_taken_over(Orders::SOUND));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn nodes_pushed_back_without_release_are_rejected() {
        sync::rejected(|| {
            the_owner_takes_what_was_taken_over(Orders { push: Relaxed, ..Orders::SOUND });
        });
    }

    fn two_takeovers_meet(take_over: fn(&Owned)) {
        let owned = Owned::new(Orders::SOUND);
        owned.free(1);
        owned.free(2);
        let taker = spawn(&owned, take_over);
        take_over(&owned);
        taker();
        owned.take_home();
        assert_eq!(owned.home() % 100, 3);
    }

    #[test]
    fn two_threads_that_take_over_one_inbox_lose_nothing() {
        sync::model(|| two_takeovers_meet(Owned::take_over));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_takeover_in_two_steps_is_rejected() {
        sync::rejected(|| {
            two_takeovers_meet(|owned| {
                let first = owned.inbox.head.load(Acquire);
                owned.inbox.head.store(ptr::null_mut(), Relaxed);
                // SAFETY: wrong on purpose: another thread may have loaded the same node.
                owned.change_and_push_back(unsafe { Nodes::from_first(first) });
            });
        });
    }

    /// The owner ends while another thread takes its inbox over.
    fn a_takeover_meets_the_owners_end(take_over: fn(&Owned)) {
        let owned = Owned::new(Orders::SOUND);
        owned.free(1);
        let taker = spawn(&owned, take_over);
        owned.close();
        taker();
        assert!(owned.adopt(), "somebody closed it last");
        assert_eq!(owned.home() % 100, 1);
    }

    #[test]
    fn a_takeover_meets_the_owners_end_and_nothing_is_left_behind() {
        sync::model(|| a_takeover_meets_the_owners_end(Owned::take_over));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_takeover_by_a_swap_is_rejected() {
        sync::rejected(|| {
            a_takeover_meets_the_owners_end(|owned| {
                let first = owned.inbox.head.swap(ptr::null_mut(), Acquire);
                if first != abandoned() {
                    // SAFETY: the nodes were the inbox's, and it has given them away.
                    owned.change_and_push_back(unsafe { Nodes::from_first(first) });
                }
            });
        });
    }

    #[test]
    fn an_adopter_meets_a_takeover() {
        sync::model(|| {
            let owned = Owned::new(Orders::SOUND);
            owned.close();
            let taker = spawn(&owned, |owned| {
                owned.free(1);
                owned.take_over();
            });
            if owned.adopt() {
                owned.take_home();
                owned.work();
                owned.close();
            }
            taker();
            assert!(owned.adopt());
            assert!([1, 11].contains(&(owned.home() % 100)));
        });
    }

    #[test]
    #[cfg_attr(loom, ignore = "one thread, so there is nothing to explore")]
    fn the_count_of_waiting_bytes_starts_again_when_the_inbox_is_emptied() {
        let owned = Owned::new(Orders::SOUND);
        owned.free(1);
        assert!(!owned.inbox.count(60, 100));
        assert!(owned.inbox.count(60, 100), "a multiple of the step was passed");
        assert_eq!(owned.inbox.waiting(), 120);
        owned.take_home();
        assert_eq!(owned.inbox.waiting(), 0);
    }
}
