//! Every thread heap there ever was, owned or abandoned: a list that only grows.
//!
//! A heap is registered once, when it is made, and adopted again and again; so the list is as long
//! as the most threads that ever had a heap at the same time.

use std::ptr::{self, NonNull};

use sync::atomic::{
    AtomicPtr,
    Ordering::{self, Acquire, Relaxed, Release},
};

/// Something that can be in a registry, once.
///
/// # Safety
///
/// [`next`](Registered::next) is always the same cell of the object.
pub(crate) unsafe trait Registered: Sized {
    /// The registry's link to the object that was registered before.
    fn next(&self) -> &AtomicPtr<Self>;
}

/// A list of objects that live forever.
#[derive(Debug)]
pub(crate) struct Registry<T> {
    /// # Invariant
    ///
    /// Null, or an object that lives forever, from which links lead over others to null.
    first: AtomicPtr<T>,
}

impl<T: Registered + 'static> Registry<T> {
    sync::const_unless_model! {
        /// Nothing is registered.
        pub(crate) fn new() -> Self {
            Self { first: AtomicPtr::new(ptr::null_mut()) }
        }
    }

    /// Registers `object`, which is in no registry yet.
    pub(crate) fn add(&self, object: &'static T) {
        self.add_with(Release, object);
    }

    fn add_with(&self, order: Ordering, object: &'static T) {
        let place = ptr::from_ref(object).cast_mut();
        let mut first = self.first.load(Relaxed);
        loop {
            object.next().store(first, Relaxed);
            // INVARIANT: the object lives forever, and links to the others.
            match self.first.compare_exchange_weak(first, place, order, Relaxed) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// The objects, the last one registered first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'static T> {
        self.iter_with(Acquire)
    }

    fn iter_with(&self, order: Ordering) -> impl Iterator<Item = &'static T> {
        let object = |place: *mut T| {
            // SAFETY: the invariant: the object lives forever, and is only ever shared.
            NonNull::new(place).map(|place| unsafe { place.as_ref() })
        };
        let first = object(self.first.load(order));
        std::iter::successors(first, move |at: &&'static T| object(at.next().load(Relaxed)))
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

    // SAFETY: `contents` is only read once the item is registered.
    unsafe impl Sync for Item {}

    // SAFETY: the field is always the same.
    unsafe impl Registered for Item {
        fn next(&self) -> &AtomicPtr<Self> {
            &self.next
        }
    }

    fn item(contents: u32) -> &'static Item {
        let item = Item { next: AtomicPtr::new(ptr::null_mut()), contents: UnsafeCell::new(0) };
        // SAFETY: the item is ours until it is registered.
        item.contents.with_mut(|place| unsafe { *place = contents });
        Box::leak(Box::new(item))
    }

    /// Frees the items of a registry that nobody walks any more.
    fn free_items(registry: Arc<Registry<Item>>) {
        let items: Vec<_> = registry.iter().map(|item| ptr::from_ref(item).cast_mut()).collect();
        drop(registry);
        for item in items {
            // SAFETY: `item` boxed it, and the registry was the last to know it.
            drop(unsafe { Box::from_raw(item) });
        }
    }

    fn sum(registry: &Registry<Item>) -> u32 {
        sum_with(Acquire, registry)
    }

    fn sum_with(order: Ordering, registry: &Registry<Item>) -> u32 {
        let contents = |item: &'static Item| {
            // SAFETY: nobody writes to a registered item.
            item.contents.with(|contents| unsafe { *contents })
        };
        registry.iter_with(order).map(contents).sum()
    }

    fn two_are_made(add: fn(&Registry<Item>, &'static Item)) {
        let registry = Arc::new(Registry::new());
        let other = Arc::clone(&registry);
        let maker = thread::spawn(move || add(&other, item(1)));
        add(&registry, item(2));
        maker.join().unwrap();
        assert_eq!(sum(&registry), 3);
        free_items(registry);
    }

    #[test]
    fn heaps_made_at_once_are_all_registered() {
        sync::model(|| two_are_made(Registry::add));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_registration_in_two_steps_is_rejected() {
        sync::rejected(|| {
            two_are_made(|registry, item| {
                item.next.store(registry.first.load(Relaxed), Relaxed);
                registry.first.store(ptr::from_ref(item).cast_mut(), Release);
            });
        });
    }

    fn a_walk_meets_a_registration(add: Ordering, walk: Ordering) {
        let registry = Arc::new(Registry::new());
        let other = Arc::clone(&registry);
        let walker = thread::spawn(move || assert!([0, 1, 3].contains(&sum_with(walk, &other))));
        registry.add_with(add, item(1));
        registry.add_with(add, item(2));
        walker.join().unwrap();
        free_items(registry);
    }

    #[test]
    fn a_walk_sees_registered_heaps_whole() {
        sync::model(|| a_walk_meets_a_registration(Release, Acquire));
    }

    #[test]
    fn a_walk_sees_the_heaps_of_two_threads_whole() {
        sync::model(|| {
            let registry = Arc::new(Registry::new());
            let (other, walked) = (Arc::clone(&registry), Arc::clone(&registry));
            let maker = thread::spawn(move || other.add(item(1)));
            let walker = thread::spawn(move || assert!(sum(&walked) <= 3));
            registry.add(item(2));
            maker.join().unwrap();
            walker.join().unwrap();
            free_items(registry);
        });
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_heap_registered_without_release_is_rejected() {
        sync::rejected(|| a_walk_meets_a_registration(Relaxed, Acquire));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_walk_without_acquire_is_rejected() {
        sync::rejected(|| a_walk_meets_a_registration(Release, Relaxed));
    }
}
