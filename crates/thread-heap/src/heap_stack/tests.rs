//! Loom models of [`HeapStack`], in which each item on the stack stands for a heap. Like a heap,
//! each item has an inbox, which stores whether the heap has an owner.

use sync::{Arc, Mutex, UnsafeCell, link::Link, thread};

use super::*;
use crate::freed::inbox::Inbox;

/// A node of an inbox that always stays empty.
#[repr(align(8))]
struct Node;

// SAFETY: no node is ever created.
unsafe impl Link for Node {
    unsafe fn next(_: NonNull<Self>) -> *mut Self {
        ptr::null_mut()
    }

    unsafe fn set_next(_: NonNull<Self>, _: *mut Self) {}
}

struct Item {
    stacked: Stacked<Item>,
    inbox: Inbox<Node>,
    contents: UnsafeCell<u32>,
}

// SAFETY: `contents` is written before the item is shared, and then only by the owner of the inbox.
unsafe impl Sync for Item {}

impl Stackable for Item {
    fn stacked(&self) -> &Stacked<Self> {
        &self.stacked
    }
}

impl Item {
    fn new(contents: u32) -> &'static Self {
        let contents_later = UnsafeCell::new(0);
        let item = Self { stacked: Stacked::new(), inbox: Inbox::new(), contents: contents_later };
        // Like a real heap, the item is written after its creation.
        // SAFETY: nothing else refers to the item yet.
        item.contents.with_mut(|place| unsafe { *place = contents });
        Box::leak(Box::new(item))
    }

    fn contents(&self) -> u32 {
        // SAFETY: no thread writes to an item that other threads can find.
        self.contents.with(|contents| unsafe { *contents })
    }

    fn free(&'static self) {
        // SAFETY: `new` allocated the item with a `Box`, and no thread uses it any more.
        drop(unsafe { Box::from_raw(ptr::from_ref(self).cast_mut()) });
    }
}

struct Stage<O = Sound> {
    stack: HeapStack<Item, O>,
    lock: Mutex<()>,
}

impl<O: Orders> Stage<O> {
    fn new() -> Arc<Self> {
        Arc::new(Self { stack: HeapStack::new(), lock: Mutex::new(()) })
    }

    fn pop(&self) -> Option<&'static Item> {
        self.stack.pop(|| sync::lock(&self.lock))
    }

    fn close(&self, item: &'static Item) {
        assert!(item.inbox.abandon());
        self.stack.push(item);
    }

    /// Adopts the first item that has no owner.
    fn open(&self) -> Option<&'static Item> {
        std::iter::from_fn(|| self.pop()).find(|item| item.inbox.adopt())
    }

    /// Owns an abandoned item for a moment, as a thread does that frees a block of its heap.
    fn visit(&self, item: &'static Item) {
        if item.inbox.adopt() {
            self.close(item);
        }
    }
}

fn spawn<T: Send + 'static, O: Orders + 'static>(
    stage: &Arc<Stage<O>>,
    act: impl FnOnce(&Stage<O>) -> T + Send + 'static,
) -> impl FnOnce() -> T {
    let stage = Arc::clone(stage);
    let thread = thread::spawn(move || act(&stage));
    move || thread.join().unwrap()
}

weak_orders! {
    RelaxedLink: LINK,
    RelaxedUnlink: UNLINK,
    RelaxedSetMark: SET_MARK,
    RelaxedRemoveMark: REMOVE_MARK,
}

fn a_pop_meets_two_pushes<O: Orders + 'static>() {
    let stage = Stage::<O>::new();
    let popper = spawn(&stage, |stage| stage.pop().map(|item| (item, item.contents())));
    let pusher = spawn(&stage, |stage| stage.stack.push(Item::new(1)));
    stage.stack.push(Item::new(2));
    pusher();
    let popped = popper();
    let mut sum = popped.map_or(0, |(_, contents)| contents);
    popped.into_iter().for_each(|(item, _)| item.free());
    for item in std::iter::from_fn(|| stage.pop()) {
        sum += item.contents();
        item.free();
    }
    assert_eq!(sum, 3);
}

#[test]
fn each_pushed_heap_is_popped_once_and_initialised() {
    sync::model(a_pop_meets_two_pushes::<Sound>);
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_link_without_release_is_rejected() {
    sync::rejected(a_pop_meets_two_pushes::<RelaxedLink>);
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn an_unlink_without_acquire_is_rejected() {
    sync::rejected(a_pop_meets_two_pushes::<RelaxedUnlink>);
}

fn a_heap_returns_during_a_pop(pop: fn(&Stage) -> Option<&'static Item>) {
    let stage = Stage::<Sound>::new();
    let items = [Item::new(1), Item::new(2)];
    items.iter().for_each(|item| stage.stack.push(item));
    let other = spawn(&stage, move |stage| pop(stage).map(Item::contents));
    let (first, second) = (pop(&stage), pop(&stage));
    let mut kept = second.map_or(0, Item::contents);
    first.into_iter().for_each(|item| stage.stack.push(item));
    kept += other().unwrap_or(0);
    // If a heap is in two places, the stack can even be circular.
    let rest: u32 = (0..2).filter_map(|_| pop(&stage)).map(Item::contents).sum();
    assert_eq!(kept + rest, 3);
    items.into_iter().for_each(Item::free);
}

#[test]
fn a_heap_that_returns_during_a_pop_is_in_one_place() {
    sync::model(|| a_heap_returns_during_a_pop(Stage::pop));
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_pop_without_the_lock_is_rejected() {
    sync::rejected(|| a_heap_returns_during_a_pop(|stage| stage.stack.pop(|| ())));
}

fn an_opening_meets_a_visit<O: Orders + 'static>(
    open: fn(&Stage<O>) -> Option<&'static Item>,
    close: fn(&Stage<O>, &'static Item),
) {
    let stage = Stage::<O>::new();
    let item = Item::new(1);
    stage.close(item);
    let visitor = spawn(&stage, move |stage| {
        if item.inbox.adopt() {
            close(stage, item);
        }
    });
    let opened = open(&stage);
    visitor();
    if opened.is_none() {
        assert!(stage.open().is_some(), "an abandoned heap is missing from the stack");
    }
    item.free();
}

#[test]
fn an_abandoned_heap_that_another_thread_owns_for_a_moment_stays_on_the_stack() {
    sync::model(|| an_opening_meets_a_visit::<Sound>(Stage::open, Stage::close));
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_mark_set_relaxed_is_rejected() {
    sync::rejected(|| an_opening_meets_a_visit::<RelaxedSetMark>(Stage::open, Stage::close));
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_mark_removed_relaxed_is_rejected() {
    sync::rejected(|| an_opening_meets_a_visit::<RelaxedRemoveMark>(Stage::open, Stage::close));
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_mark_removed_after_the_adoption_is_rejected() {
    sync::rejected(|| {
        let open = |stage: &Stage| {
            let item = stage.stack.unlink()?;
            let is_adopted = item.inbox.adopt();
            item.stacked.mark.swap(false, AcqRel);
            is_adopted.then_some(item)
        };
        an_opening_meets_a_visit::<Sound>(open, Stage::close);
    });
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_mark_set_before_the_heap_is_abandoned_is_rejected() {
    sync::rejected(|| {
        let close = |stage: &Stage, item: &'static Item| {
            stage.stack.push(item);
            assert!(item.inbox.abandon());
        };
        an_opening_meets_a_visit::<Sound>(Stage::open, close);
    });
}

#[test]
fn two_threads_that_open_a_heap_meet_a_visit() {
    sync::model(|| {
        let stage = Stage::<Sound>::new();
        let item = Item::new(1);
        stage.close(item);
        let visitor = spawn(&stage, move |stage| stage.visit(item));
        let open_and_close = |stage: &Stage| {
            if let Some(item) = stage.open() {
                // SAFETY: the thread has adopted the item.
                item.contents.with_mut(|contents| unsafe { *contents += 1 });
                stage.close(item);
            }
        };
        let opener = spawn(&stage, open_and_close);
        open_and_close(&stage);
        opener();
        visitor();
        assert!(stage.open().is_some(), "an abandoned heap is missing from the stack");
        assert!((1..=3).contains(&item.contents()));
        item.free();
    });
}
