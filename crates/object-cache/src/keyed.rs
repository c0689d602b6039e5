//! Families of caches: one for each length of an object.

use core::{marker::PhantomData, ptr::NonNull};

use raw_mem::MemAlloc;

use crate::{Cache, Cleared, Stats, dead_list::DeadList, link::Dead, storage::Storage};

/// Keeps the storage of dead objects whose length is fixed when they are made: a header `H`, then
/// `len` items of type `E`. Each length from 1 to `LENGTHS` has a list of its own, for up to
/// `bound` objects; other lengths go straight to the allocator `A`.
///
/// ```text
///   ┌──────────┬────────┬────────┬─ ─ ─ ┬────────────┐
///   │ header H │ item 0 │ item 1 │      │ item len-1 │
///   └──────────┴────────┴────────┴─ ─ ─ ┴────────────┘
/// ```
///
/// [`run`](Self::run) makes objects that own their items; [`take`](Self::take) and
/// [`put`](Self::put) are for a runtime with pointers of its own.
///
/// CPython: tuples of up to 20 items, 2,000 of each length. (Through a slip, 3.11 and 3.12 keep
/// tuples of 20 items and never use them again; here every length that is kept is used.)
pub struct KeyedFreeList<H, E, A: MemAlloc, const LENGTHS: usize> {
    /// # Invariant
    ///
    /// What is in list i came from `lower` as storage for i + 1 items, and holds no values.
    lists: [DeadList<Dead>; LENGTHS],
    lower: A,
    of: PhantomData<fn() -> (H, E)>,
}

/// defects, doubtful: items aligned to more than 16 bytes panicked in `take`, and again in `drop`.
///
/// ```
/// # use object_cache::KeyedFreeList;
/// # use raw_mem::Malloc;
/// #[repr(align(16))]
/// struct Item(u8);
/// KeyedFreeList::<(), Item, _, 4>::new(10, Malloc);
/// ```
///
/// ```compile_fail,E0080
/// # use object_cache::KeyedFreeList;
/// # use raw_mem::Malloc;
/// #[repr(align(32))]
/// struct Item(u8);
/// KeyedFreeList::<(), Item, _, 4>::new(10, Malloc);
/// ```
#[cfg(doctest)]
struct AnObjectIsAlignedTo16BytesAtMost;

// SAFETY: the lists own the storage in them, as in a `FreeList`.
unsafe impl<H, E, A: MemAlloc + Send, const LENGTHS: usize> Send
    for KeyedFreeList<H, E, A, LENGTHS>
{
}

impl<H, E, A: MemAlloc, const LENGTHS: usize> KeyedFreeList<H, E, A, LENGTHS> {
    const ALIGN: usize =
        if align_of::<H>() > align_of::<E>() { align_of::<H>() } else { align_of::<E>() };

    /// Where the items begin.
    const ITEMS: usize = size_of::<H>().next_multiple_of(align_of::<E>());

    /// Empty lists that keep at most `bound` dead objects each. Asks for nothing yet.
    ///
    /// # Panics
    ///
    /// Panics when `bound` is 0.
    pub const fn new(bound: u32, lower: A) -> Self {
        // An alignment that no layer below promises is refused here, at compile time.
        let _ = const { Storage::new(Self::ITEMS, Self::ALIGN) };
        let mut lists = [const { DeadList::new(1) }; LENGTHS];
        let mut index = 0;
        while index < LENGTHS {
            lists[index].set_bound(bound);
            index += 1;
        }
        Self { lists, lower, of: PhantomData }
    }

    /// Storage for `len` items; `None` when no address space holds as many.
    const fn storage(len: usize) -> Option<Storage> {
        match size_of::<E>().checked_mul(len) {
            Some(bytes) => match bytes.checked_add(Self::ITEMS) {
                Some(bytes) => Some(Storage::new(bytes, Self::ALIGN)),
                None => None,
            },
            None => None,
        }
    }

    fn bytes(len: usize) -> usize {
        Self::storage(len).map_or(usize::MAX, |storage| storage.bytes)
    }

    #[inline]
    fn list(&self, len: usize) -> Option<&DeadList<Dead>> {
        // Length 0 wraps to an index behind every list.
        self.lists.get(len.wrapping_sub(1))
    }

    /// Takes storage for an object of `len` items, uninitialised: the last dead object's of that
    /// length, or new from the layer below.
    ///
    /// `None` when there is no memory, and when the layer below aligns its blocks to less than
    /// the object needs.
    #[inline]
    pub fn take(&self, len: usize) -> Option<NonNull<H>> {
        match self.list(len).and_then(DeadList::take) {
            Some(dead) => Some(dead.cast()),
            None => self.take_below(len),
        }
    }

    #[cold]
    #[inline(never)]
    fn take_below(&self, len: usize) -> Option<NonNull<H>> {
        if let Some(list) = self.list(len) {
            list.missed();
        }
        Self::storage(len)?.ask(&self.lower).map(NonNull::cast)
    }

    /// Puts the storage of an object that is dead: its header and items were dropped, or never
    /// were.
    ///
    /// # Safety
    ///
    /// `storage` came from [`take`](Self::take) of this cache with the same `len`, holds no live
    /// value, and is not used again.
    #[inline]
    pub unsafe fn put(&self, storage: NonNull<H>, len: usize) {
        let over = match self.list(len) {
            // SAFETY: the caller gives the storage up, and it has room for a link.
            // INVARIANT: it came from `take` with this length.
            Some(list) => match unsafe { list.put(storage.cast()) } {
                Ok(()) => return,
                Err(over) => over,
            },
            None => storage.cast(),
        };
        // SAFETY: no list took it.
        unsafe { self.put_below(over) };
    }

    /// # Safety
    ///
    /// `over` came from `take`, holds no values, and is in no list.
    #[cold]
    #[inline(never)]
    unsafe fn put_below(&self, over: NonNull<Dead>) {
        // SAFETY: what came from `take` once came from `lower`.
        unsafe { self.lower.free(Some(over.cast())) }
    }

    /// The first item of an object.
    ///
    /// # Safety
    ///
    /// `object` came from [`take`](Self::take) of a cache of this type.
    #[inline]
    pub unsafe fn items(object: NonNull<H>) -> NonNull<E> {
        // SAFETY: storage for any number of items reaches that far.
        unsafe { object.byte_add(Self::ITEMS).cast() }
    }

    /// Gives every dead object's storage down, and says how much it was.
    ///
    /// If the layer below panics, the objects that it was not given yet stay in their lists.
    pub fn clear(&self) -> Cleared {
        let mut cleared = Cleared::default();
        for (list, len) in self.lists.iter().zip(1..) {
            // SAFETY: `lists`' invariant, and the object has left its list.
            let count = list.clear(|dead| unsafe { self.put_below(dead) });
            cleared += Cleared::of(count as usize, Self::bytes(len));
        }
        cleared
    }

    /// The figures of the objects of `len` items; `None` for lengths that are not kept.
    pub fn stats(&self, len: usize) -> Option<Stats> {
        Some(self.list(len)?.stats(Self::bytes(len)))
    }
}

impl<H, E, A: MemAlloc, const LENGTHS: usize> Cache for KeyedFreeList<H, E, A, LENGTHS> {
    fn clear(&self) -> Cleared {
        self.clear()
    }

    fn each_list(&self, see: &mut dyn FnMut(Option<usize>, Stats)) {
        for (list, len) in self.lists.iter().zip(1..) {
            see(Some(len), list.stats(Self::bytes(len)));
        }
    }
}

impl<H, E, A: MemAlloc, const LENGTHS: usize> Drop for KeyedFreeList<H, E, A, LENGTHS> {
    fn drop(&mut self) {
        let _ = self.clear();
    }
}

#[cfg(test)]
mod tests {
    use raw_mem::Malloc;

    use super::*;
    use crate::testing::{Hooked, below, on_next_free, panic_of};

    type Tuples<A> = KeyedFreeList<u32, u64, A, 3>;

    fn take_and_put<A: MemAlloc>(tuples: &Tuples<A>, len: usize) -> NonNull<u32> {
        let object = tuples.take(len).unwrap();
        // SAFETY: the object came from the cache with this length and holds no values.
        unsafe { tuples.put(object, len) };
        object
    }

    #[test]
    fn an_object_serves_its_own_length_again_and_no_other() {
        let (below, live) = below();
        let tuples = Tuples::new(10, below);
        let two = take_and_put(&tuples, 2);
        let three = take_and_put(&tuples, 3);
        assert_ne!(two, three);
        assert_eq!((take_and_put(&tuples, 2), take_and_put(&tuples, 3)), (two, three));
        assert_eq!(live.count(), 2);
    }

    /// defects D6, in this cache: what was drained was lost when the layer below panicked.
    #[test]
    fn a_clear_that_panics_keeps_what_it_did_not_give_down() {
        let (hooked, live) = Hooked::new();
        let tuples = Tuples::new(10, hooked);
        for len in [1, 1, 2] {
            let object = tuples.take(len).unwrap();
            take_and_put(&tuples, len);
            // SAFETY: the object came from the cache with this length and holds no values.
            unsafe { tuples.put(object, len) };
        }
        on_next_free(|| panic!("a free that panics"));
        assert_eq!(panic_of(|| _ = tuples.clear()), "a free that panics");
        let left = live.count();
        assert_eq!((left, tuples.clear().objects, live.count()), (3, 3, 0));
    }

    #[test]
    fn every_length_has_the_whole_bound() {
        let (below, live) = below();
        let tuples = Tuples::new(2, below);
        for len in 1..=3 {
            let objects = [0; 3].map(|_| tuples.take(len).unwrap());
            // SAFETY: the objects came from the cache with this length and hold no values.
            objects.iter().for_each(|&object| unsafe { tuples.put(object, len) });
        }
        assert_eq!(live.count(), 6);
        assert_eq!(tuples.stats(3).unwrap().overflows, 1);
    }

    #[test]
    fn lengths_that_are_not_kept_go_down_at_once() {
        let (below, live) = below();
        let tuples = Tuples::new(2, below);
        for len in [0, 4, 1000] {
            take_and_put(&tuples, len);
            assert_eq!((live.count(), tuples.stats(len)), (0, None));
        }
    }

    #[test]
    fn a_length_that_no_memory_holds_is_refused() {
        let tuples = Tuples::new(2, Malloc);
        assert_eq!(tuples.take(usize::MAX), None);
        assert_eq!(tuples.take(usize::MAX / 8), None);
    }

    #[test]
    fn clearing_says_how_many_bytes_of_each_length_went_down() {
        let (below, live) = below();
        let tuples = Tuples::new(2, below);
        take_and_put(&tuples, 1);
        take_and_put(&tuples, 3);
        // The header takes 8 bytes, so that items are aligned.
        assert_eq!(tuples.clear(), Cleared { objects: 2, bytes: 16 + 32 });
        assert_eq!(live.count(), 0);
    }

    #[test]
    fn dropping_the_cache_gives_every_length_down() {
        let (below, live) = below();
        let tuples = Tuples::new(2, below);
        for len in 1..=3 {
            take_and_put(&tuples, len);
        }
        drop(tuples);
        assert_eq!(live.count(), 0);
    }

    #[test]
    fn a_report_names_the_lengths() {
        let tuples = Tuples::new(2, Malloc);
        take_and_put(&tuples, 2);
        let mut lists = std::vec![];
        tuples.each_list(&mut |length, stats| lists.push((length, stats.free)));
        assert_eq!(lists, [(Some(1), 0), (Some(2), 1), (Some(3), 0)]);
    }
}
