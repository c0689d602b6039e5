//! The list of all heaps, whether or not they have an owner.
//!
//! The list never shrinks. A heap is added when a thread finds no abandoned heap to adopt.

use std::ptr::{self, NonNull};

use sync::atomic::{
    AtomicPtr,
    Ordering::{self, Acquire, Relaxed, Release},
};

/// An object that can be in one [`HeapList`] at a time.
///
/// # Safety
///
/// - [`next`](Self::next) must always return the same field of the object.
pub(crate) unsafe trait Listed: Sized {
    /// Returns the link to the object that was added before this one.
    fn next(&self) -> &AtomicPtr<Self>;
}

#[derive(Debug)]
pub(crate) struct HeapList<T> {
    /// # Invariant
    ///
    /// Null, or the first of a chain of objects that ends at null. All of these objects live
    /// forever.
    first: AtomicPtr<T>,
}

impl<T: Listed + 'static> HeapList<T> {
    sync::const_unless_model! {
        pub(crate) fn new() -> Self {
            Self { first: AtomicPtr::new(ptr::null_mut()) }
        }
    }

    /// Adds `object`, which must not be in a list yet, to the front of the list.
    pub(crate) fn add(&self, object: &'static T) {
        self.add_with(Release, object);
    }

    fn add_with(&self, order: Ordering, object: &'static T) {
        let place = ptr::from_ref(object).cast_mut();
        let mut first = self.first.load(Relaxed);
        loop {
            object.next().store(first, Relaxed);
            // INVARIANT: the object lives forever, and links to the object that was first before.
            match self.first.compare_exchange_weak(first, place, order, Relaxed) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// Returns the objects of the list, beginning with the newest.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'static T> {
        self.iter_with(Acquire)
    }

    fn iter_with(&self, order: Ordering) -> impl Iterator<Item = &'static T> {
        let object = |place: *mut T| {
            // SAFETY: the object lives forever (invariant of `first`), and is only shared.
            NonNull::new(place).map(|place| unsafe { place.as_ref() })
        };
        let first = object(self.first.load(order));
        std::iter::successors(first, move |at: &&'static T| object(at.next().load(Relaxed)))
            .inspect(|_| visits::count())
    }
}

/// Counts nothing, because only tests need the number of visits.
#[cfg(not(test))]
pub(crate) mod visits {
    #[inline]
    pub(crate) fn count() {}
}

/// Counts how many heaps the calling thread has looked at.
#[cfg(test)]
pub(crate) mod visits {
    use std::cell::Cell;

    std::thread_local! {
        static VISITS: Cell<usize> = const { Cell::new(0) };
    }

    pub(crate) fn count() {
        VISITS.set(VISITS.get() + 1);
    }

    /// Returns the number of visits during `body`.
    #[cfg(not(loom))]
    pub(crate) fn during(body: impl FnOnce()) -> usize {
        let before = VISITS.get();
        body();
        VISITS.get() - before
    }
}

#[cfg(test)]
mod tests {
    use sync::{Arc, UnsafeCell, thread};

    use super::*;

    struct Item {
        next: AtomicPtr<Item>,
        contents: UnsafeCell<u32>,
    }

    // SAFETY: after an item was added to a list, `contents` is only read.
    unsafe impl Sync for Item {}

    // SAFETY: the method always returns the field `next`.
    unsafe impl Listed for Item {
        fn next(&self) -> &AtomicPtr<Self> {
            &self.next
        }
    }

    fn item(contents: u32) -> &'static Item {
        let item = Item { next: AtomicPtr::new(ptr::null_mut()), contents: UnsafeCell::new(0) };
        // SAFETY: nothing else refers to the item before it is added to a list.
        item.contents.with_mut(|place| unsafe { *place = contents });
        Box::leak(Box::new(item))
    }

    fn free_items(list: Arc<HeapList<Item>>) {
        let items: Vec<_> = list.iter().map(|item| ptr::from_ref(item).cast_mut()).collect();
        drop(list);
        for item in items {
            // SAFETY: `item` allocated the object with a `Box`, and nothing else refers to it.
            drop(unsafe { Box::from_raw(item) });
        }
    }

    fn sum(list: &HeapList<Item>) -> u32 {
        sum_with(Acquire, list)
    }

    fn sum_with(order: Ordering, list: &HeapList<Item>) -> u32 {
        let contents = |item: &'static Item| {
            // SAFETY: nothing writes to an item in a list.
            item.contents.with(|contents| unsafe { *contents })
        };
        list.iter_with(order).map(contents).sum()
    }

    fn two_are_added(add: fn(&HeapList<Item>, &'static Item)) {
        let list = Arc::new(HeapList::new());
        let other = Arc::clone(&list);
        let maker = thread::spawn(move || add(&other, item(1)));
        add(&list, item(2));
        maker.join().unwrap();
        assert_eq!(sum(&list), 3);
        free_items(list);
    }

    #[test]
    fn heaps_that_are_added_at_once_are_all_in_the_list() {
        sync::model(|| two_are_added(HeapList::add));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn an_addition_in_two_steps_is_rejected() {
        sync::rejected(|| {
            two_are_added(|list, item| {
                item.next.store(list.first.load(Relaxed), Relaxed);
                list.first.store(ptr::from_ref(item).cast_mut(), Release);
            });
        });
    }

    fn a_walk_meets_an_addition(add: Ordering, walk: Ordering) {
        let list = Arc::new(HeapList::new());
        let other = Arc::clone(&list);
        let walker = thread::spawn(move || assert!([0, 1, 3].contains(&sum_with(walk, &other))));
        list.add_with(add, item(1));
        list.add_with(add, item(2));
        walker.join().unwrap();
        free_items(list);
    }

    #[test]
    fn a_walk_sees_listed_heaps_initialised() {
        sync::model(|| a_walk_meets_an_addition(Release, Acquire));
    }

    #[test]
    fn a_walk_sees_the_heaps_of_two_threads_initialised() {
        sync::model(|| {
            let list = Arc::new(HeapList::new());
            let (other, walked) = (Arc::clone(&list), Arc::clone(&list));
            let maker = thread::spawn(move || other.add(item(1)));
            let walker = thread::spawn(move || assert!(sum(&walked) <= 3));
            list.add(item(2));
            maker.join().unwrap();
            walker.join().unwrap();
            free_items(list);
        });
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_heap_added_without_release_is_rejected() {
        sync::rejected(|| a_walk_meets_an_addition(Relaxed, Acquire));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_walk_without_acquire_is_rejected() {
        sync::rejected(|| a_walk_meets_an_addition(Release, Relaxed));
    }
}
