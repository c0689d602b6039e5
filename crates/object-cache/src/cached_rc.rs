//! A pointer that shares an object of a cache by counting references.

use core::{cell::Cell, fmt, marker::PhantomData, mem::ManuallyDrop, ops::Deref, ptr::NonNull};

use crate::{BareHome, Home, HuskHome, home::Vacant};

/// A value and how many [`CachedRc`] point at it: what a cache for counted objects is a cache of.
///
/// ```
/// use object_cache::{CachedRc, Counted, FreeList};
/// use raw_mem::Malloc;
///
/// let lists = FreeList::<Counted<Vec<u8>>, _>::new(80, Malloc);
/// let list = CachedRc::new_in(vec![1, 2, 3], &lists).unwrap();
/// let same = CachedRc::clone(&list);
/// assert_eq!((same.len(), CachedRc::count(&list)), (3, 2));
/// ```
pub struct Counted<T> {
    count: Cell<usize>,
    pub(crate) value: T,
}

impl<T> Counted<T> {
    /// A value that one pointer is about to point at.
    pub(crate) fn one(value: T) -> Self {
        Self { count: Cell::new(1), value }
    }
}

/// Shares a `T` whose storage belongs to the cache `H`, as `Rc` shares one of the heap.
///
/// When the last pointer is dropped the value is dropped too, and its storage goes back to the
/// cache; where the cache keeps husks, the value is made ready for its next life instead.
///
/// For one thread: the count is no atomic.
pub struct CachedRc<T, H: Home<Counted<T>>> {
    /// # Invariant
    ///
    /// Came from `home`, and is live; its count is the number of pointers at it.
    object: NonNull<Counted<T>>,
    home: H,
    shares: PhantomData<Counted<T>>,
}

impl<T, H: Home<Counted<T>>> CachedRc<T, H> {
    /// Moves `value` into storage of `home`. `None` when there is no memory; `value` is dropped
    /// then.
    #[inline]
    pub fn new_in(value: T, home: H) -> Option<Self>
    where
        H: BareHome<Counted<T>>,
    {
        Self::make_in(|| value, home)
    }

    /// Makes a value in storage of `home`. `None` when there is no memory; `make` is not called
    /// then. If `make` panics the storage goes back.
    #[inline]
    pub fn make_in(make: impl FnOnce() -> T, home: H) -> Option<Self>
    where
        H: BareHome<Counted<T>>,
    {
        let storage = home.take()?;
        // SAFETY: the storage came from `home` and is ours; `fill` ends the guard.
        let vacant = unsafe { Vacant::new(&home, storage) };
        // INVARIANT: `fill` moves the value in, counted once.
        let object = vacant.fill(Counted::one(make()));
        Some(Self { object, home, shares: PhantomData })
    }

    /// A husk of `home`, or a fresh value where none is left. `None` when there is no memory.
    #[inline]
    pub fn revive_in(home: H) -> Option<Self>
    where
        H: HuskHome<Counted<T>>,
    {
        let object = home.revive()?;
        // SAFETY: a `HuskHome` gives live values, to us alone.
        // INVARIANT: ours is the only pointer.
        unsafe { object.as_ref() }.count.set(1);
        Some(Self { object, home, shares: PhantomData })
    }

    #[inline]
    fn counted(&self) -> &Counted<T> {
        // SAFETY: `object`'s invariant.
        unsafe { self.object.as_ref() }
    }

    /// How many pointers share the value.
    #[inline]
    pub fn count(this: &Self) -> usize {
        this.counted().count.get()
    }

    /// Whether both point at the same object.
    #[inline]
    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        this.object == other.object
    }

    /// The value, for writing, where no other pointer shares it.
    #[inline]
    pub fn get_mut(this: &mut Self) -> Option<&mut T> {
        if Self::count(this) != 1 {
            return None;
        }
        // SAFETY: `object`'s invariant; this pointer is the only one, and borrowed exclusively.
        Some(unsafe { &mut this.object.as_mut().value })
    }

    /// Moves the value out where no other pointer shares it; its storage goes back to the cache.
    ///
    /// # Errors
    ///
    /// Gives the pointer back where another one shares the value.
    #[inline]
    pub fn try_unwrap(this: Self) -> Result<T, Self>
    where
        H: BareHome<Counted<T>>,
    {
        if Self::count(&this) != 1 {
            return Err(this);
        }
        let this = ManuallyDrop::new(this);
        // SAFETY: `object`'s invariant; nobody else points at it, and `this` is not dropped.
        let counted = unsafe { this.object.read() };
        // SAFETY: `this` is not used again, so its handle is ours.
        let home = unsafe { core::ptr::read(&this.home) };
        // SAFETY: the value has moved out.
        unsafe { home.put(this.object) };
        Ok(counted.value)
    }
}

impl<T, H: Home<Counted<T>> + Clone> Clone for CachedRc<T, H> {
    /// Another pointer at the same object.
    ///
    /// # Panics
    ///
    /// Panics when the count would overflow, which takes as many pointers that were forgotten.
    #[inline]
    fn clone(&self) -> Self {
        let home = self.home.clone();
        let count = &self.counted().count;
        // INVARIANT: one pointer more.
        count.set(count.get().checked_add(1).expect("fewer pointers than bytes of memory"));
        Self { object: self.object, home, shares: PhantomData }
    }
}

impl<T, H: Home<Counted<T>>> Drop for CachedRc<T, H> {
    #[inline]
    fn drop(&mut self) {
        let count = &self.counted().count;
        // INVARIANT: one pointer less.
        count.set(count.get() - 1);
        if count.get() == 0 {
            // SAFETY: `object`'s invariant, and this was the last pointer.
            unsafe { self.home.retire(self.object) }
        }
    }
}

impl<T, H: Home<Counted<T>>> Deref for CachedRc<T, H> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.counted().value
    }
}

impl<T: fmt::Debug, H: Home<Counted<T>>> fmt::Debug for CachedRc<T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Display, H: Home<Counted<T>>> fmt::Display for CachedRc<T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        FreeList, HuskList,
        testing::{Below, Log, Logged, below, husk_log, panic_of},
    };

    type Lists = FreeList<Counted<Logged>, Below>;

    #[test]
    fn the_last_pointer_drops_the_value() {
        let log = Log::default();
        let cache = Lists::new(10, below().0);
        let one = CachedRc::new_in(log.value(1), &cache).unwrap();
        let other = one.clone();
        assert!(CachedRc::ptr_eq(&one, &other));
        drop(one);
        assert_eq!((log.dropped(), CachedRc::count(&other), cache.stats().free), ([].into(), 1, 0));
        drop(other);
        assert_eq!((log.dropped(), cache.stats().free), ([1].into(), 1));
    }

    #[test]
    fn only_a_value_that_is_not_shared_can_be_written_or_moved_out() {
        let log = Log::default();
        let cache = Lists::new(10, below().0);
        let mut one = CachedRc::new_in(log.value(1), &cache).unwrap();
        let other = one.clone();
        assert!(CachedRc::get_mut(&mut one).is_none());
        let mut one = CachedRc::try_unwrap(one).unwrap_err();
        drop(other);
        CachedRc::get_mut(&mut one).unwrap().id = 5;
        let value = CachedRc::try_unwrap(one).unwrap();
        assert_eq!((value.id, log.dropped(), cache.stats().free), (5, [].into(), 1));
    }

    #[test]
    fn a_value_that_panics_while_dropped_gives_the_storage_back() {
        let log = Log::default();
        let cache = Lists::new(10, below().0);
        let value = CachedRc::new_in(log.value(1), &cache);
        log.arm([1]);
        assert_eq!(panic_of(|| drop(value)), "bomb 1");
        assert_eq!((log.dropped(), cache.stats().free), ([1].into(), 1));
    }

    #[test]
    fn a_husk_that_is_shared_again_counts_from_one() {
        let cache = HuskList::<Counted<Logged>, _>::new(10, below().0);
        let one = CachedRc::revive_in(&cache).unwrap();
        drop((one.clone(), one));
        let again = CachedRc::revive_in(&cache).unwrap();
        assert_eq!((again.id, CachedRc::count(&again)), (0, 1));
        drop(again);
        assert_eq!((husk_log().recycled(), husk_log().dropped()), ([0, 0].into(), [].into()));
        drop(cache);
        assert_eq!(husk_log().dropped(), [0]);
    }
}
