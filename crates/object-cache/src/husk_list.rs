//! A bounded cache of husks: values that keep what they own between two lives.

use core::{cell::RefCell, ptr::NonNull};

use raw_mem::MemAlloc;

use crate::{
    Cache, Cleared, Home, HuskHome, Recycle, Stats,
    dead_list::DeadList,
    husk::{Emptied, Husk},
    link::Chain,
};

/// Keeps up to `bound` husks of type `T`, the last one retired first, over the allocator `A`.
///
/// [`Cached::revive_in`](crate::Cached::revive_in) and
/// [`CachedRc::revive_in`](crate::CachedRc::revive_in) take them; a husk beyond the bound is
/// dropped and its storage given down.
///
/// A value that panics in [`Recycle::recycle`] is set aside, and dropped by the next
/// [`clear`](Self::clear): it has no second life, and no panic meets another.
///
/// ```
/// use object_cache::{Cached, HuskList, Recycle};
/// use raw_mem::Malloc;
///
/// struct Buffer(Vec<u8>);
/// impl Recycle for Buffer {
///     fn fresh() -> Self { Buffer(Vec::new()) }
///     fn recycle(&mut self) { self.0.clear() }
/// }
///
/// let buffers = HuskList::<Buffer, _>::new(10, Malloc);
/// let mut buffer = Cached::revive_in(&buffers).unwrap();
/// buffer.0.extend([0; 1000]);
/// drop(buffer);
/// let again = Cached::revive_in(&buffers).unwrap();
/// assert!(again.0.is_empty() && again.0.capacity() >= 1000);
/// ```
pub struct HuskList<T: Recycle, A: MemAlloc> {
    /// # Invariant
    ///
    /// What is in the list came from `lower` as storage for a `Husk<T>`, and its value is live
    /// and recycled.
    list: DeadList<Husk<T>>,
    /// # Invariant
    ///
    /// As for `list`, but the value panicked while it was recycled.
    unfit: RefCell<Chain<Husk<T>>>,
    lower: A,
}

// SAFETY: the list owns the values and the storage in it.
unsafe impl<T: Recycle + Send, A: MemAlloc + Send> Send for HuskList<T, A> {}

impl<T: Recycle, A: MemAlloc> HuskList<T, A> {
    /// An empty cache that keeps at most `bound` husks. Asks for nothing yet.
    ///
    /// # Panics
    ///
    /// Panics when `bound` is 0.
    pub const fn new(bound: u32, lower: A) -> Self {
        Self { list: DeadList::new(bound), unfit: RefCell::new(Chain::EMPTY), lower }
    }

    /// Makes a fresh value in new storage.
    #[cold]
    #[inline(never)]
    fn revive_below(&self) -> Option<NonNull<T>> {
        self.list.missed();
        let storage = Husk::<T>::STORAGE.ask(&self.lower)?.cast::<Husk<T>>();
        // SAFETY: the storage came from `lower` just now, and no value is in it yet.
        let guard = unsafe { Emptied::new(&self.lower, storage) };
        let value = T::fresh();
        core::mem::forget(guard);
        // SAFETY: the storage was asked for as that of a husk.
        let place = unsafe { Husk::value(storage) };
        // SAFETY: the storage has room for a value here, and is ours.
        unsafe { place.write(value) };
        Some(place)
    }

    /// Drops every husk, gives its storage down, and says how much storage it was.
    ///
    /// # Panics
    ///
    /// Panics when dropping a husk does. Its storage went down all the same, and the husks that
    /// are left are dropped by the next clear.
    pub fn clear(&self) -> Cleared {
        let unfit = core::mem::replace(&mut *self.unfit.borrow_mut(), Chain::EMPTY);
        self.bury_all(unfit) + self.bury_all(self.list.drain().0)
    }

    fn bury_all(&self, husks: Chain<Husk<T>>) -> Cleared {
        let mut rest = Rest { husks, home: self };
        let mut buried = 0;
        while let Some(husk) = rest.husks.pop() {
            // SAFETY: `list`'s and `unfit`'s invariants, and the husk has left its chain.
            unsafe { self.bury(husk) };
            buried += 1;
        }
        Cleared::of(buried, Husk::<T>::STORAGE.bytes)
    }

    /// Drops a value and gives its storage down.
    ///
    /// # Safety
    ///
    /// `husk` came from `lower`, its value is live, and it is not used again.
    unsafe fn bury(&self, husk: NonNull<Husk<T>>) {
        // SAFETY: the storage is not used after the guard frees it; its value is dropped by then.
        let _storage = unsafe { Emptied::new(&self.lower, husk) };
        // SAFETY: the caller's husk is storage of ours.
        let value = unsafe { Husk::value(husk) };
        // SAFETY: the caller says that the value is live.
        unsafe { value.drop_in_place() };
    }

    /// The figures.
    pub fn stats(&self) -> Stats {
        self.list.stats(Husk::<T>::STORAGE.bytes)
    }
}

// SAFETY: a retired value is recycled and kept, or dropped once; one that panics is set aside.
unsafe impl<T: Recycle, A: MemAlloc> Home<T> for HuskList<T, A> {
    #[inline]
    unsafe fn retire(&self, object: NonNull<T>) {
        // SAFETY: the caller's object came from this home, so it is the value of a husk.
        let husk = unsafe { Husk::of(object) };
        let aside = Aside { husk, home: self };
        // SAFETY: the caller says that the value is live and used by nobody else.
        unsafe { &mut *object.as_ptr() }.recycle();
        core::mem::forget(aside);
        // SAFETY: the caller gives the object up.
        // INVARIANT: the value is recycled.
        if let Err(over) = unsafe { self.list.put(husk) } {
            // SAFETY: the list did not take it.
            unsafe { self.bury(over) };
        }
    }
}

// SAFETY: a husk leaves the list before it is handed out; a fresh value is written into storage
// of its own.
unsafe impl<T: Recycle, A: MemAlloc> HuskHome<T> for HuskList<T, A> {
    #[inline]
    fn revive(&self) -> Option<NonNull<T>> {
        match self.list.take() {
            // SAFETY: `list`'s invariant.
            Some(husk) => Some(unsafe { Husk::value(husk) }),
            None => self.revive_below(),
        }
    }
}

impl<T: Recycle, A: MemAlloc> Cache for HuskList<T, A> {
    fn clear(&self) -> Cleared {
        self.clear()
    }

    fn each_list(&self, see: &mut dyn FnMut(Option<usize>, Stats)) {
        see(None, self.stats());
    }
}

impl<T: Recycle, A: MemAlloc> Drop for HuskList<T, A> {
    /// Drops every husk. After one that panics, the values that are left are forgotten, since a
    /// second panic would abort; their storage goes down.
    fn drop(&mut self) {
        let _storage = Remains(self);
        let _ = self.clear();
    }
}

/// A husk on its way to the unfit ones, unless forgotten.
struct Aside<'h, T: Recycle, A: MemAlloc> {
    husk: NonNull<Husk<T>>,
    home: &'h HuskList<T, A>,
}

impl<T: Recycle, A: MemAlloc> Drop for Aside<'_, T, A> {
    fn drop(&mut self) {
        // SAFETY: `retire` owns the husk, and gives it up by unwinding.
        unsafe { self.home.unfit.borrow_mut().push(self.husk) };
    }
}

/// Husks that are about to be dropped. If one of them panics the others become unfit: they are
/// dropped later, and have no second life.
struct Rest<'h, T: Recycle, A: MemAlloc> {
    husks: Chain<Husk<T>>,
    home: &'h HuskList<T, A>,
}

impl<T: Recycle, A: MemAlloc> Drop for Rest<'_, T, A> {
    fn drop(&mut self) {
        for husk in self.husks.by_ref() {
            // SAFETY: the chain owned the husk.
            unsafe { self.home.unfit.borrow_mut().push(husk) };
        }
    }
}

/// The storage of a cache that is being dropped, values or no values.
struct Remains<'h, T: Recycle, A: MemAlloc>(&'h HuskList<T, A>);

impl<T: Recycle, A: MemAlloc> Drop for Remains<'_, T, A> {
    fn drop(&mut self) {
        let unfit = core::mem::replace(&mut *self.0.unfit.borrow_mut(), Chain::EMPTY);
        unfit.chain(self.0.list.drain().0).for_each(|husk| {
            // SAFETY: `list`'s and `unfit`'s invariants; the values are forgotten.
            drop(unsafe { Emptied::new(&self.0.lower, husk) });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Cached,
        testing::{Below, Logged, Plan, below, failing, husk_log, panic_of},
    };

    type Husks = HuskList<Logged, Below>;

    fn revive(husks: &Husks, count: usize) -> std::vec::Vec<Cached<Logged, &Husks>> {
        core::iter::from_fn(|| Cached::revive_in(husks)).take(count).collect()
    }

    #[test]
    fn a_value_is_recycled_and_lives_again() {
        let (below, live) = below();
        let husks = Husks::new(10, below);
        drop(revive(&husks, 1));
        assert_eq!((husk_log().recycled(), husk_log().dropped()), ([0].into(), [].into()));
        assert_eq!((revive(&husks, 1)[0].id, live.count()), (0, 1));
    }

    #[test]
    fn a_husk_beyond_the_bound_is_dropped() {
        let (below, live) = below();
        let husks = Husks::new(2, below);
        drop(revive(&husks, 3));
        assert_eq!((husk_log().dropped(), live.count()), ([2].into(), 2));
    }

    #[test]
    fn clearing_drops_every_husk_once() {
        let (below, live) = below();
        let husks = Husks::new(10, below);
        drop(revive(&husks, 3));
        assert_eq!(husks.clear().objects, 3);
        assert_eq!((husk_log().dropped(), live.count()), ([2, 1, 0].into(), 0));
        drop(husks);
        assert_eq!(husk_log().dropped(), []);
    }

    #[test]
    fn a_husk_that_panics_while_cleared_leaves_the_others_for_the_next_time() {
        let (below, live) = below();
        let husks = Husks::new(10, below);
        drop(revive(&husks, 3));
        husk_log().arm([0, 2]);
        for bomb in [2, 0] {
            assert_eq!(panic_of(|| _ = husks.clear()), std::format!("bomb {bomb}"));
            assert_eq!(husk_log().dropped(), [bomb]);
        }
        assert_eq!((husks.clear().objects, husk_log().dropped()), (1, [1].into()));
        assert_eq!(live.count(), 0);
    }

    #[test]
    fn a_cache_whose_husks_all_panic_is_dropped_with_one_panic_and_no_leak_of_storage() {
        let (below, live) = below();
        let husks = Husks::new(10, below);
        drop(revive(&husks, 3));
        husk_log().arm([0, 1, 2]);
        assert_eq!(panic_of(|| drop(husks)), "bomb 2");
        assert_eq!((husk_log().dropped(), live.count()), ([2].into(), 0));
    }

    #[test]
    fn a_value_that_panics_while_recycled_has_no_second_life() {
        let (below, live) = below();
        let husks = Husks::new(10, below);
        let value = revive(&husks, 1);
        husk_log().arm([100]);
        assert_eq!(panic_of(|| drop(value)), "bomb 100");
        assert_eq!((revive(&husks, 1)[0].id, husk_log().dropped()), (1, [].into()));
        assert_eq!(husks.clear().objects, 2);
        assert_eq!((husk_log().dropped(), live.count()), ([0, 1].into(), 0));
    }

    #[test]
    fn a_fresh_value_that_panics_gives_the_storage_down() {
        let (below, live) = below();
        let husks = Husks::new(10, below);
        husk_log().arm([1000]);
        assert_eq!(panic_of(|| drop(revive(&husks, 1))), "bomb 1000");
        assert_eq!(live.count(), 0);
    }

    #[test]
    fn without_memory_nothing_is_made() {
        let husks = Husks::new(10, failing(Plan::From(1)).0);
        assert!(revive(&husks, 1).is_empty());
        assert_eq!(husk_log().dropped(), []);
    }
}
