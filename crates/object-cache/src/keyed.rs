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
    pub fn clear(&self) -> Cleared {
        let mut cleared = Cleared::default();
        for (list, len) in self.lists.iter().zip(1..) {
            let (chain, count) = list.drain();
            // SAFETY: `lists`' invariant, and the chain has left its list.
            chain.for_each(|dead| unsafe { self.put_below(dead) });
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
