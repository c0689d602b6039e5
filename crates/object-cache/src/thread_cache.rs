//! One thread's cache.

use core::ptr::NonNull;

use raw_mem::MemAlloc;

use crate::{
    BareHome, Cache, Cleared, Home, SharedCache, Stats, drop_and_put, link::Dead,
    thread_list::ThreadList,
};

/// One thread's cache over a [`SharedCache`]: a list, and a spare magazine. No atomic operation is
/// made but where both are empty, or both full.
///
/// ```
/// use object_cache::{Cached, SharedCache};
/// use raw_mem::Malloc;
///
/// let shared = SharedCache::<f64, Malloc>::new(64, Malloc);
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         let floats = shared.thread();
///         drop(Cached::new_in(3.14, &floats));
///         drop(Cached::new_in(2.72, &floats));
///         assert_eq!(floats.stats().hits, 1);
///     });
/// });
/// assert_eq!(shared.clear().objects, 1);   // the thread left it in the depot
/// ```
pub struct ThreadCache<'s, T, A: MemAlloc, const SLOTS: usize = 16> {
    /// # Invariant
    ///
    /// What is in the list came from the shared allocator as storage for a `T`, and holds no
    /// value.
    list: ThreadList<Dead>,
    shared: &'s SharedCache<T, A, SLOTS>,
}

impl<'s, T, A: MemAlloc, const SLOTS: usize> ThreadCache<'s, T, A, SLOTS> {
    pub(crate) const fn new(shared: &'s SharedCache<T, A, SLOTS>) -> Self {
        Self { list: ThreadList::new(shared.magazine), shared }
    }

    /// Takes storage for a `T`, uninitialised: a dead object of this thread, then one of the
    /// depot, then new from the layer below. `None` when there is no memory.
    #[inline]
    pub fn take(&self) -> Option<NonNull<T>> {
        match self.list.take() {
            Some(dead) => Some(dead.cast()),
            None => self.refill(),
        }
    }

    #[cold]
    #[inline(never)]
    fn refill(&self) -> Option<NonNull<T>> {
        match self.list.refill(&self.shared.depot) {
            Some(dead) => Some(dead.cast()),
            None => self.shared.take_below(),
        }
    }

    /// Puts the storage of an object that is dead: its value was dropped, or never was.
    ///
    /// # Safety
    ///
    /// `storage` came from this cache or another of the same [`SharedCache`], holds no live
    /// value, and is not used again.
    #[inline]
    pub unsafe fn put(&self, storage: NonNull<T>) {
        // SAFETY: the caller gives the storage up, and it has room for a link.
        // INVARIANT: it came from the shared allocator, and holds no value.
        if let Err(over) = unsafe { self.list.put(storage.cast()) } {
            // SAFETY: the list did not take it.
            unsafe { self.spill(over) };
        }
    }

    /// # Safety
    ///
    /// `over` came from a cache of the same `SharedCache`, holds no value, and is in no list.
    #[cold]
    #[inline(never)]
    unsafe fn spill(&self, over: NonNull<Dead>) {
        // SAFETY: the caller's promise.
        if let Some(magazine) = unsafe { self.list.spill(over, &self.shared.depot) } {
            self.shared.give_down(magazine);
        }
    }

    /// Gives what this thread has to the layer below, and says how much it was. The depot keeps
    /// what it has: [`SharedCache::clear`] empties that.
    pub fn clear(&self) -> Cleared {
        let magazines = self.list.magazines();
        let objects = magazines.map(|magazine| self.shared.give_down(magazine)).sum();
        Cleared::of(objects, SharedCache::<T, A, SLOTS>::STORAGE.bytes)
    }

    /// The figures of this thread. An overflow is a magazine that became the spare; only what the
    /// depot has no slot for goes to the layer below.
    pub fn stats(&self) -> Stats {
        self.list.stats(SharedCache::<T, A, SLOTS>::STORAGE.bytes)
    }

    /// What this cache shares with those of other threads.
    pub fn shared(&self) -> &'s SharedCache<T, A, SLOTS> {
        self.shared
    }
}

// SAFETY: `drop_and_put` ends a life once.
unsafe impl<T, A: MemAlloc, const SLOTS: usize> Home<T> for ThreadCache<'_, T, A, SLOTS> {
    #[inline]
    unsafe fn retire(&self, object: NonNull<T>) {
        // SAFETY: the caller's promise.
        unsafe { drop_and_put(self, object) }
    }
}

// SAFETY: storage is asked for by the layout of `T`; a dead object leaves the list before it is
// handed out, and comes back only through `put`. A magazine has one owner at a time.
unsafe impl<T, A: MemAlloc, const SLOTS: usize> BareHome<T> for ThreadCache<'_, T, A, SLOTS> {
    #[inline]
    fn take(&self) -> Option<NonNull<T>> {
        self.take()
    }

    #[inline]
    unsafe fn put(&self, storage: NonNull<T>) {
        // SAFETY: the caller's promise.
        unsafe { self.put(storage) }
    }
}

impl<T, A: MemAlloc, const SLOTS: usize> Cache for ThreadCache<'_, T, A, SLOTS> {
    fn clear(&self) -> Cleared {
        self.clear()
    }

    fn each_list(&self, see: &mut dyn FnMut(Option<usize>, Stats)) {
        see(None, self.stats());
    }
}

impl<T, A: MemAlloc, const SLOTS: usize> Drop for ThreadCache<'_, T, A, SLOTS> {
    fn drop(&mut self) {
        self.shared.past.add(&self.stats());
        self.list.hand_over(&self.shared.depot, |magazine| {
            self.shared.give_down(magazine);
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{thread, vec::Vec};

    use super::*;
    use crate::{
        Cached,
        testing::{Below, Hooked, Log, below, on_next_free, panic_of},
    };

    type Shared = SharedCache<u64, Below, 2>;
    type Local<'s> = ThreadCache<'s, u64, Below, 2>;

    fn take(local: &Local<'_>, count: usize) -> Vec<NonNull<u64>> {
        core::iter::from_fn(|| local.take()).take(count).collect()
    }

    fn put(local: &Local<'_>, objects: &[NonNull<u64>]) {
        for &object in objects {
            // SAFETY: the objects of these tests come from one shared cache and hold no values.
            unsafe { local.put(object) };
        }
    }

    #[test]
    fn no_more_is_kept_than_two_magazines_in_hand_and_one_in_each_slot() {
        let (below, live) = below();
        let shared = Shared::new(3, below);
        let local = shared.thread();
        put(&local, &take(&local, 99));
        assert_eq!((live.count(), shared.magazines(), local.stats().free), ((2 + 2) * 3, 2, 6));
        drop(local);
        assert_eq!(live.count(), 2 * 3);
    }

    /// defects D6, in this cache: the rest of a magazine, and the other magazine in hand, were lost
    /// when the layer below panicked.
    #[test]
    fn a_clear_that_panics_leaves_the_rest_in_the_depot_or_in_hand() {
        let (hooked, live) = Hooked::new();
        let shared = SharedCache::<u64, Hooked, 2>::new(3, hooked);
        let local = shared.thread();
        let objects: Vec<_> = (0..5).map(|_| local.take().unwrap()).collect();
        // SAFETY: the objects come from this cache and hold no values.
        objects.into_iter().for_each(|object| unsafe { local.put(object) });
        on_next_free(|| panic!("a free that panics"));
        assert_eq!(panic_of(|| _ = local.clear()), "a free that panics");
        assert_eq!((live.count(), shared.magazines(), local.stats().free), (4, 1, 2));
        on_next_free(|| panic!("a free that panics"));
        assert_eq!(panic_of(|| _ = shared.clear()), "a free that panics");
        assert_eq!((live.count(), shared.magazines()), (3, 1));
        assert_eq!((local.clear().objects, shared.clear().objects, live.count()), (2, 1, 0));
    }

    #[test]
    fn taking_and_putting_at_the_edge_of_a_magazine_stays_in_the_hands() {
        let (below, live) = below();
        let shared = Shared::new(3, below);
        let local = shared.thread();
        put(&local, &take(&local, 3));
        for _ in 0..10 {
            put(&local, &take(&local, 4));
        }
        assert_eq!((live.count(), shared.magazines(), local.stats().misses), (4, 0, 4));
    }

    #[test]
    fn what_a_thread_leaves_at_its_end_serves_the_next() {
        let (below, live) = below();
        let shared = Shared::new(3, below);
        thread::scope(|scope| {
            scope.spawn(|| {
                let local = shared.thread();
                put(&local, &take(&local, 5));
            });
        });
        assert_eq!((live.count(), shared.magazines()), (5, 2), "one of them is not full");
        let local = shared.thread();
        let objects = take(&local, 5);
        assert_eq!((local.stats().hits, local.stats().misses, live.count()), (5, 0, 5));
        put(&local, &objects);
    }

    #[test]
    fn what_the_depot_has_no_slot_for_goes_down_at_a_threads_end() {
        let (below, live) = below();
        let shared = Shared::new(3, below);
        let locals = [0; 3].map(|_| shared.thread());
        locals.iter().for_each(|local| put(local, &take(local, 2)));
        assert_eq!(live.count(), 6);
        drop(locals);
        assert_eq!((live.count(), shared.magazines()), (4, 2));
    }

    #[test]
    fn the_figures_of_a_thread_that_ended_are_kept() {
        let shared = Shared::new(3, below().0);
        let local = shared.thread();
        put(&local, &take(&local, 2));
        put(&local, &take(&local, 2));
        drop(local);
        assert_eq!((shared.stats().hits, shared.stats().misses), (2, 2));
    }

    #[test]
    fn clearing_is_possible_from_either_side() {
        let (below, live) = below();
        let shared = Shared::new(3, below);
        let local = shared.thread();
        put(&local, &take(&local, 10));
        assert_eq!(shared.clear(), Cleared { objects: 6, bytes: 96 });
        assert_eq!(local.clear(), Cleared { objects: 4, bytes: 64 });
        assert_eq!(live.count(), 0);
    }

    #[test]
    fn dropping_everything_gives_everything_down() {
        let (below, live) = below();
        let shared = Shared::new(3, below);
        put(&shared.thread(), &take(&shared.thread(), 20));
        drop(shared);
        assert_eq!(live.count(), 0);
    }

    #[test]
    fn a_value_that_panics_while_dropped_gives_the_storage_back() {
        let log = Log::default();
        let shared = SharedCache::<_, _>::new(3, below().0);
        let local: ThreadCache<'_, _, _> = shared.thread();
        let value = Cached::new_in(log.value(1), &local);
        log.arm([1]);
        assert_eq!(panic_of(|| drop(value)), "bomb 1");
        assert_eq!((log.dropped(), local.stats().free), ([1].into(), 1));
    }

    #[test]
    #[should_panic(expected = "at least one object")]
    fn a_magazine_of_nothing_is_refused() {
        Shared::new(0, below().0);
    }
}
