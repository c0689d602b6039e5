//! Models of an inbox. Loom can observe the nodes of the inbox.

use std::ptr::NonNull;

use sync::{Arc, UnsafeCell, thread};

use super::*;

struct Node {
    next: UnsafeCell<*mut Node>,
    contents: UnsafeCell<u32>,
}

// SAFETY: `next` reads the link from the field to which `set_next` writes it.
unsafe impl Link for Node {
    unsafe fn next(node: NonNull<Self>) -> *mut Self {
        // SAFETY: the caller owns the node (contract of `next`).
        unsafe { node.as_ref() }.next.with(|next| unsafe { *next })
    }

    unsafe fn set_next(node: NonNull<Self>, next: *mut Self) {
        // SAFETY: the caller owns the node (contract of `set_next`).
        unsafe { node.as_ref() }.next.with_mut(|place| unsafe { *place = next });
    }
}

weak_orders! {
    RelaxedPush: PUSH,
    RelaxedTake: TAKE,
    RelaxedTakeOver: TAKE_OVER,
    RelaxedAbandon: ABANDON,
    RelaxedAdopt: ADOPT,
}

impl<N: Link> Inbox<N> {
    /// Adopts the heap without a compare-and-swap, which is wrong on purpose.
    pub(crate) fn adopt_in_two_steps(&self) -> bool {
        let free = self.head.load(Acquire) == abandoned();
        if free {
            self.head.store(ptr::null_mut(), Release);
        }
        free
    }
}

struct Owned<O = Sound> {
    inbox: Inbox<Node, O>,
    /// The sum of the contents of all reclaimed nodes. Only the owner accesses it.
    sum: UnsafeCell<u32>,
}

// SAFETY: only the owner accesses `sum`, which the models check.
unsafe impl<O> Send for Owned<O> {}
// SAFETY: as above.
unsafe impl<O> Sync for Owned<O> {}

impl<O: Orders> Owned<O> {
    fn new() -> Arc<Self> {
        Arc::new(Self { inbox: Inbox::new(), sum: UnsafeCell::new(0) })
    }

    fn reclaim(&self, nodes: Chain<Node>) {
        for node in nodes {
            // SAFETY: `node` allocated it with a `Box`, and the thread that took it out owns it.
            let node = unsafe { Box::from_raw(node.as_ptr()) };
            // SAFETY: we own the node.
            let contents = node.contents.with(|contents| unsafe { *contents });
            // SAFETY: only the owner calls this.
            self.sum.with_mut(|sum| unsafe { *sum += contents });
        }
    }

    fn free(&self, contents: u32) {
        self.free_nodes(segment(contents));
    }

    fn free_nodes(&self, nodes: Segment<Node>) {
        if let Some(nodes) = self.inbox.push(nodes) {
            self.reclaim(nodes.into_chain());
            self.close();
        }
    }

    fn close(&self) {
        while !self.inbox.abandon() {
            self.reclaim_inbox();
        }
    }

    fn reclaim_inbox(&self) {
        self.reclaim(self.inbox.take_all());
    }

    /// Takes over the inbox, and adds 100 to the contents of each node.
    fn take_over(&self) {
        let Some(nodes) = self.inbox.take_over() else { return };
        self.change_and_push_back(nodes);
    }

    fn change_and_push_back(&self, nodes: Chain<Node>) {
        for node in nodes {
            // SAFETY: the thread that took the nodes over owns them.
            let contents = unsafe { &node.as_ref().contents };
            // SAFETY: as above.
            contents.with_mut(|contents| unsafe { *contents += 100 });
            // SAFETY: we own the node, and give it up.
            self.free_nodes(unsafe { Segment::of(node) });
        }
    }

    fn adopt(&self) -> bool {
        self.inbox.adopt()
    }

    fn work(&self) {
        // SAFETY: only the owner calls this.
        self.sum.with_mut(|sum| unsafe { *sum += 10 });
    }

    fn sum(&self) -> u32 {
        // SAFETY: only the owner calls this.
        self.sum.with(|sum| unsafe { *sum })
    }
}

fn segment(contents: u32) -> Segment<Node> {
    // SAFETY: we own the node, and give it up.
    unsafe { Segment::of(node(contents)) }
}

fn node(contents: u32) -> NonNull<Node> {
    let node =
        Box::new(Node { next: UnsafeCell::new(ptr::null_mut()), contents: UnsafeCell::new(0) });
    // Like a real block, the node is written after its creation.
    // SAFETY: we own the node.
    node.contents.with_mut(|place| unsafe { *place = contents });
    NonNull::from(Box::leak(node))
}

fn spawn<O: Orders + 'static>(
    owned: &Arc<Owned<O>>,
    act: impl FnOnce(&Owned<O>) + Send + 'static,
) -> impl FnOnce() {
    let owned = Arc::clone(owned);
    let thread = thread::spawn(move || act(&owned));
    move || thread.join().unwrap()
}

fn two_frees_meet_an_owner<O: Orders + 'static>() {
    two_frees_meet_a_take(Owned::<O>::reclaim_inbox);
}

fn two_frees_meet_a_take<O: Orders + 'static>(take: fn(&Owned<O>)) {
    let owned = Owned::<O>::new();
    let owner = spawn(&owned, take);
    owned.free(1);
    owned.free(2);
    owner();
    owned.reclaim_inbox();
    assert_eq!(owned.sum(), 3);
}

#[test]
fn every_remote_free_reaches_the_owner_once_with_its_contents() {
    sync::model(two_frees_meet_an_owner::<Sound>);
}

#[test]
fn nodes_that_were_sent_together_arrive_together() {
    sync::model(|| {
        let owned = Owned::<Sound>::new();
        let owner = spawn(&owned, |owned| {
            owned.reclaim_inbox();
            assert!([0, 3].contains(&owned.sum()));
        });
        let mut both = None;
        for contents in [1, 2] {
            // SAFETY: we own the node, and give it up.
            unsafe { Segment::push(&mut both, node(contents)) };
        }
        owned.free_nodes(both.unwrap());
        owner();
        owned.reclaim_inbox();
        assert_eq!(owned.sum(), 3);
    });
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_push_without_release_is_rejected() {
    sync::rejected(two_frees_meet_an_owner::<RelaxedPush>);
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_take_without_acquire_is_rejected() {
    sync::rejected(two_frees_meet_an_owner::<RelaxedTake>);
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_take_in_two_steps_is_rejected() {
    sync::rejected(|| {
        two_frees_meet_a_take(|owned: &Owned| {
            let first = owned.inbox.head.load(Acquire);
            owned.inbox.head.store(ptr::null_mut(), Release);
            // SAFETY: wrong on purpose, because a push may have come between the two steps.
            owned.reclaim(unsafe { Chain::from_head(first) });
        });
    });
}

fn two_pushes_meet_an_owner(push: fn(&Owned, Segment<Node>)) {
    let owned = Owned::<Sound>::new();
    let freers = [1, 2].map(|contents| spawn(&owned, move |owned| push(owned, segment(contents))));
    owned.reclaim_inbox();
    freers.into_iter().for_each(|freer| freer());
    owned.reclaim_inbox();
    assert_eq!(owned.sum(), 3);
}

#[test]
fn two_threads_free_into_one_inbox_while_the_owner_takes_it() {
    sync::model(|| two_pushes_meet_an_owner(Owned::free_nodes));
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_push_in_two_steps_is_rejected() {
    sync::rejected(|| {
        two_pushes_meet_an_owner(|owned, nodes| {
            nodes.link_to(owned.inbox.head.load(Acquire));
            owned.inbox.head.store(nodes.first().as_ptr(), Release);
        });
    });
}

fn the_last_free_meets_the_owners_end<O: Orders + 'static>() {
    let owned = Owned::<O>::new();
    let ending = spawn(&owned, |owned| {
        owned.work();
        owned.close();
    });
    owned.free(1);
    ending();
    assert!(owned.adopt(), "the heap is abandoned in the end");
    assert_eq!(owned.sum(), 11);
}

#[test]
fn the_last_remote_free_may_race_with_the_owners_end() {
    sync::model(the_last_free_meets_the_owners_end::<Sound>);
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn an_abandonment_without_release_is_rejected() {
    sync::rejected(the_last_free_meets_the_owners_end::<RelaxedAbandon>);
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn an_adoption_without_acquire_is_rejected() {
    sync::rejected(the_last_free_meets_the_owners_end::<RelaxedAdopt>);
}

/// Abandons the heap without a compare-and-swap, which is wrong on purpose.
fn close_in_two_steps(owned: &Owned) {
    owned.reclaim_inbox();
    if owned.inbox.head.load(Acquire).is_null() {
        owned.inbox.head.store(abandoned(), Release);
    }
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn an_abandonment_in_two_steps_is_rejected() {
    sync::rejected(|| {
        let owned = Owned::<Sound>::new();
        let freer = spawn(&owned, |owned| owned.free(1));
        close_in_two_steps(&owned);
        freer();
        if owned.adopt() {
            assert_eq!(owned.sum(), 1);
        } else {
            owned.reclaim_inbox();
            assert_eq!(owned.sum(), 1);
        }
    });
}

fn two_adopt(adopt: fn(&Inbox<Node>) -> bool) {
    let owned = Owned::<Sound>::new();
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
    assert!([10, 20].contains(&owned.sum()));
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
        let owned = Owned::<Sound>::new();
        owned.close();
        let freer = spawn(&owned, |owned| owned.free(1));
        if owned.adopt() {
            owned.reclaim_inbox();
            owned.close();
        }
        freer();
        assert!(owned.adopt());
        assert_eq!(owned.sum(), 1);
    });
}

fn a_takeover_meets_the_owner<O: Orders + 'static>() {
    let owned = Owned::<O>::new();
    let freer = spawn(&owned, |owned| owned.free(1));
    let taker = spawn(&owned, Owned::take_over);
    owned.reclaim_inbox();
    freer();
    taker();
    owned.reclaim_inbox();
    assert!([1, 101].contains(&owned.sum()));
}

#[test]
fn an_inbox_is_taken_over_while_a_sender_pushes_and_the_owner_takes() {
    sync::model(a_takeover_meets_the_owner::<Sound>);
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_takeover_without_acquire_is_rejected() {
    sync::rejected(a_takeover_meets_the_owner::<RelaxedTakeOver>);
}

fn the_owner_takes_what_was_taken_over<O: Orders + 'static>() {
    let owned = Owned::<O>::new();
    owned.free(1);
    let owner = spawn(&owned, Owned::reclaim_inbox);
    if let Some(nodes) = owned.inbox.take_over() {
        for node in nodes {
            // SAFETY: the thread that took the nodes over owns them.
            let contents = unsafe { &node.as_ref().contents };
            // SAFETY: as above.
            contents.with_mut(|contents| unsafe { *contents += 100 });
            // SAFETY: we own the node, and give it up.
            let nodes = unsafe { Segment::of(node) };
            assert!(owned.inbox.push(nodes).is_none());
        }
    }
    owner();
    owned.reclaim_inbox();
    assert!([1, 101].contains(&owned.sum()));
}

#[test]
fn the_owner_sees_what_a_takeover_changed() {
    sync::model(the_owner_takes_what_was_taken_over::<Sound>);
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn nodes_pushed_back_without_release_are_rejected() {
    sync::rejected(the_owner_takes_what_was_taken_over::<RelaxedPush>);
}

fn two_takeovers_meet(take_over: fn(&Owned)) {
    let owned = Owned::<Sound>::new();
    owned.free(1);
    owned.free(2);
    let taker = spawn(&owned, take_over);
    take_over(&owned);
    taker();
    owned.reclaim_inbox();
    assert_eq!(owned.sum() % 100, 3);
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
            // SAFETY: wrong on purpose, because another thread may have loaded the same node.
            owned.change_and_push_back(unsafe { Chain::from_head(first) });
        });
    });
}

fn a_takeover_meets_the_owners_end(take_over: fn(&Owned)) {
    let owned = Owned::<Sound>::new();
    owned.free(1);
    let taker = spawn(&owned, take_over);
    owned.close();
    taker();
    assert!(owned.adopt(), "the heap is abandoned in the end");
    assert_eq!(owned.sum() % 100, 1);
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
                // SAFETY: the inbox owned the nodes, and no longer refers to them.
                owned.change_and_push_back(unsafe { Chain::from_head(first) });
            }
        });
    });
}

#[test]
fn an_adopter_meets_a_takeover() {
    sync::model(|| {
        let owned = Owned::<Sound>::new();
        owned.close();
        let taker = spawn(&owned, |owned| {
            owned.free(1);
            owned.take_over();
        });
        if owned.adopt() {
            owned.reclaim_inbox();
            owned.work();
            owned.close();
        }
        taker();
        assert!(owned.adopt());
        assert!([1, 11].contains(&(owned.sum() % 100)));
    });
}

/// The header of a pool: a sender reads it, and the owner changes it when the pool is empty.
struct Header(UnsafeCell<u32>);

// SAFETY: the models check the accesses.
unsafe impl Send for Header {}
// SAFETY: as above.
unsafe impl Sync for Header {}

fn a_sender_reads_a_header<O: Orders + 'static>() {
    let (owned, header) = (Owned::<O>::new(), Arc::new(Header(UnsafeCell::new(5))));
    let change = |owned: &Owned<O>, header: &Header| {
        owned.reclaim_inbox();
        if owned.sum() > 0 {
            // SAFETY: the only block of the pool was reclaimed.
            header.0.with_mut(|header| unsafe { *header += 1 });
        }
    };
    let owner = {
        let header = Arc::clone(&header);
        spawn(&owned, move |owned| change(owned, &header))
    };
    // SAFETY: the block is in use, so the owner does not change the header.
    assert_eq!(header.0.with(|header| unsafe { *header }), 5);
    owned.free(1);
    owner();
    change(&owned, &header);
}

#[test]
fn the_owner_changes_the_header_of_a_pool_after_the_senders_of_its_blocks_have_read_it() {
    sync::model(a_sender_reads_a_header::<Sound>);
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_header_that_is_read_before_a_push_without_release_is_rejected() {
    sync::rejected(a_sender_reads_a_header::<RelaxedPush>);
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_header_that_is_changed_after_a_take_without_acquire_is_rejected() {
    sync::rejected(a_sender_reads_a_header::<RelaxedTake>);
}

#[test]
#[cfg_attr(loom, ignore = "one thread, so there is nothing to explore")]
fn the_count_of_waiting_bytes_starts_again_when_the_inbox_is_emptied() {
    let owned = Owned::<Sound>::new();
    owned.free(1);
    assert!(!owned.inbox.count(60, 100));
    assert!(owned.inbox.count(60, 100), "a multiple of the step was passed");
    assert_eq!(owned.inbox.waiting(), 120);
    owned.reclaim_inbox();
    assert_eq!(owned.inbox.waiting(), 0);
}

#[cfg(not(loom))]
#[test]
fn an_owner_is_idle_unless_it_has_taken_nodes_within_the_last_moment() {
    let owned = Owned::<Sound>::new();
    assert!(owned.inbox.is_idle(1000));
    owned.free(1);
    owned.reclaim_inbox();
    assert!(!owned.inbox.is_idle(1000));
    assert!(!owned.inbox.is_idle(1000 + IDLE_AFTER - 1));
    assert!(owned.inbox.is_idle(1000 + IDLE_AFTER));
    owned.free(2);
    owned.reclaim_inbox();
    assert!(!owned.inbox.is_idle(2000));
}
