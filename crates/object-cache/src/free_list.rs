//! A bounded cache of bare storage for objects of one type.

use core::{marker::PhantomData, ptr::NonNull};

use raw_mem::MemAlloc;

use crate::{
    BareHome, Cache, Cleared, Home, Stats, dead_list::DeadList, drop_and_put, link::Dead,
    storage::Storage,
};

/// Keeps the storage of up to `bound` dead objects of type `T`, the last one put first, over the
/// allocator `A`.
///
/// The list goes through the dead objects themselves: it has no memory of its own. A
/// [`take`](Self::take) that finds a dead object is a pop; one that finds none asks `A`. A
/// [`put`](Self::put) beyond the bound gives to `A`. Types never share storage.
///
/// CPython: the free lists of `float`, `list`, `dict` and others; [`presets`](crate::presets)
/// has their bounds.
///
/// ```
/// use object_cache::{Cached, FreeList};
/// use raw_mem::Malloc;
///
/// let floats = FreeList::new(100, Malloc);
/// let pi = Cached::new_in(3.14_f64, &floats).unwrap();
/// drop(pi);
/// let e = Cached::new_in(2.72, &floats).unwrap();
/// assert_eq!((*e, floats.stats().hits), (2.72, 1));
/// ```
pub struct FreeList<T, A: MemAlloc> {
    /// # Invariant
    ///
    /// What is in the list came from `lower` as storage for a `T`, and holds no value.
    list: DeadList<Dead>,
    lower: A,
    of: PhantomData<fn() -> T>,
}

// SAFETY: the list owns the storage in it, and storage of an allocator that may move to another
// thread may be given back there.
unsafe impl<T, A: MemAlloc + Send> Send for FreeList<T, A> {}

impl<T, A: MemAlloc> FreeList<T, A> {
    const STORAGE: Storage = Storage::of::<T>();

    /// An empty cache that keeps at most `bound` dead objects. Asks for nothing yet.
    ///
    /// # Panics
    ///
    /// Panics when `bound` is 0.
    pub const fn new(bound: u32, lower: A) -> Self {
        Self { list: DeadList::new(bound), lower, of: PhantomData }
    }

    /// Takes storage for a `T`, uninitialised: the last dead object's, or new from the layer
    /// below.
    ///
    /// `None` when there is no memory, and when the layer below aligns its blocks to less than
    /// `T` needs.
    #[inline]
    pub fn take(&self) -> Option<NonNull<T>> {
        match self.list.take() {
            Some(dead) => Some(dead.cast()),
            None => self.take_below(),
        }
    }

    #[cold]
    #[inline(never)]
    fn take_below(&self) -> Option<NonNull<T>> {
        self.list.missed();
        Self::STORAGE.ask(&self.lower).map(NonNull::cast)
    }

    /// Puts the storage of an object that is dead: its value was dropped, or never was.
    ///
    /// # Safety
    ///
    /// `storage` came from [`take`](Self::take) of this cache, holds no live value, and is not
    /// used again.
    #[inline]
    pub unsafe fn put(&self, storage: NonNull<T>) {
        // SAFETY: the caller gives the storage up, and it has room for a link.
        // INVARIANT: it came from `take`, so from `lower`, and holds no value.
        if let Err(over) = unsafe { self.list.put(storage.cast()) } {
            // SAFETY: the list did not take it, so it is ours to give down.
            unsafe { self.put_below(over) };
        }
    }

    /// # Safety
    ///
    /// `over` came from `take`, holds no value, and is in no list.
    #[cold]
    #[inline(never)]
    unsafe fn put_below(&self, over: NonNull<Dead>) {
        // SAFETY: what came from `take` once came from `lower`.
        unsafe { self.lower.free(Some(over.cast())) }
    }

    /// Gives every dead object's storage down, and says how much it was.
    ///
    /// If the layer below panics, the objects that it was not given yet stay in the list.
    pub fn clear(&self) -> Cleared {
        // SAFETY: `list`'s invariant, and the object has left the list.
        let count = self.list.clear(|dead| unsafe { self.put_below(dead) });
        Cleared::of(count as usize, Self::STORAGE.bytes)
    }

    /// The figures.
    pub fn stats(&self) -> Stats {
        self.list.stats(Self::STORAGE.bytes)
    }

    /// The layer below.
    pub const fn lower(&self) -> &A {
        &self.lower
    }
}

// SAFETY: `drop_and_put` ends a life once.
unsafe impl<T, A: MemAlloc> Home<T> for FreeList<T, A> {
    #[inline]
    unsafe fn retire(&self, object: NonNull<T>) {
        // SAFETY: the caller's promise.
        unsafe { drop_and_put(self, object) }
    }
}

// SAFETY: storage is asked for by the layout of `T`; a dead object leaves the list before it is
// handed out, and comes back only through `put`.
unsafe impl<T, A: MemAlloc> BareHome<T> for FreeList<T, A> {
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

impl<T, A: MemAlloc> Cache for FreeList<T, A> {
    fn clear(&self) -> Cleared {
        self.clear()
    }

    fn each_list(&self, see: &mut dyn FnMut(Option<usize>, Stats)) {
        see(None, self.stats());
    }
}

impl<T, A: MemAlloc> Drop for FreeList<T, A> {
    fn drop(&mut self) {
        let _ = self.clear();
    }
}

#[cfg(test)]
mod tests {
    use raw_mem::Malloc;

    use super::*;
    use crate::testing::{Hooked, Plan, below, failing, on_next_free, panic_of};

    type Word = u64;

    fn take<A: MemAlloc>(cache: &FreeList<Word, A>, count: usize) -> std::vec::Vec<NonNull<Word>> {
        core::iter::from_fn(|| cache.take()).take(count).collect()
    }

    fn put<A: MemAlloc>(cache: &FreeList<Word, A>, objects: &[NonNull<Word>]) {
        for &object in objects {
            // SAFETY: the objects of these tests come from the cache and hold no values.
            unsafe { cache.put(object) };
        }
    }

    #[test]
    fn the_last_object_put_is_the_first_one_taken() {
        let cache = FreeList::new(10, Malloc);
        let objects = take(&cache, 4);
        put(&cache, &objects);
        assert!(take(&cache, 4).iter().eq(objects.iter().rev()));
        put(&cache, &objects);
    }

    /// defects D6, in this cache: what was drained was lost when the layer below panicked.
    #[test]
    fn a_clear_that_panics_keeps_what_it_did_not_give_down() {
        let (hooked, live) = Hooked::new();
        let cache = FreeList::new(10, hooked);
        put(&cache, &take(&cache, 5));
        on_next_free(|| panic!("a free that panics"));
        assert_eq!(panic_of(|| _ = cache.clear()), "a free that panics");
        assert_eq!((live.count(), cache.stats().free), (4, 4));
        assert_eq!((cache.clear().objects, live.count()), (4, 0));
    }

    #[test]
    fn nothing_is_asked_for_before_the_first_take() {
        let (below, faults) = failing(Plan::Never);
        let cache = FreeList::<Word, _>::new(10, below);
        assert_eq!(faults.tally().calls, 0);
        put(&cache, &take(&cache, 1));
        put(&cache, &take(&cache, 1));
        assert_eq!(faults.tally().calls, 1);
    }

    #[test]
    fn a_put_beyond_the_bound_goes_down() {
        let (below, live) = below();
        let cache = FreeList::new(3, below);
        let objects = take(&cache, 5);
        put(&cache, &objects);
        assert_eq!((live.count(), cache.stats().free, cache.stats().overflows), (3, 3, 2));
        assert!(objects[..3].iter().all(|object| live.contains(object.cast())));
    }

    #[test]
    fn clearing_gives_everything_down_and_says_how_much() {
        let (below, live) = below();
        let cache = FreeList::new(10, below);
        let objects = take(&cache, 5);
        put(&cache, &objects[1..]);
        assert_eq!(cache.clear(), Cleared { objects: 4, bytes: 32 });
        assert_eq!((live.count(), cache.clear().objects), (1, 0));
        put(&cache, &objects[..1]);
    }

    #[test]
    fn dropping_the_cache_gives_everything_down() {
        let (below, live) = below();
        let cache = FreeList::new(10, below);
        put(&cache, &take(&cache, 5));
        drop(cache);
        assert_eq!(live.count(), 0);
    }

    #[test]
    fn hits_misses_and_the_high_water_are_known() {
        let cache = FreeList::new(10, Malloc);
        put(&cache, &take(&cache, 3));
        put(&cache, &take(&cache, 2));
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses, stats.high_water, stats.free), (2, 3, 3, 3));
        assert_eq!((stats.bound, stats.object_bytes), (10, 8));
    }

    #[test]
    fn where_there_is_no_memory_dead_objects_still_serve() {
        let (below, _) = failing(Plan::From(3));
        let cache = FreeList::new(10, below);
        let objects = take(&cache, 9);
        assert_eq!(objects.len(), 2);
        put(&cache, &objects);
        assert_eq!(take(&cache, 9).len(), 2);
        put(&cache, &objects);
    }

    #[test]
    fn objects_of_no_size_have_storage_of_their_own() {
        let cache = FreeList::<(), _>::new(10, Malloc);
        let (one, other) = (cache.take().unwrap(), cache.take().unwrap());
        assert_ne!(one, other);
        // SAFETY: both came from the cache.
        [one, other].iter().for_each(|&object| unsafe { cache.put(object) });
    }
}
