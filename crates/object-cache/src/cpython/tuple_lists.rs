use core::{array, fmt, marker::PhantomData, ptr::NonNull};

use raw_mem::MemAlloc;

use crate::{
    cache::{Cache, show},
    list::{BoundedStack, CacheStats, Cleared, FreeObject, Storage},
};

/// A cache for objects that consist of a header `H` and a number of items `E`, like tuples in
/// CPython.
///
/// There is one list of free objects for each number of items from 1 to `LENGTHS`. Objects without
/// items and objects with more than `LENGTHS` items are not cached.
///
/// The cache provides uninitialised storage. The caller must write the contents, and must drop them
/// before it returns the storage.
///
/// ```
/// use object_cache::cpython::TupleLists;
/// use raw_mem::Malloc;
///
/// let pairs = TupleLists::<usize, f64, _, 20>::new(2_000, Malloc);
/// let pair = pairs.take(2).unwrap();
/// // SAFETY: the storage has room for a header and two items, and goes back with the same length.
/// unsafe {
///     pair.write(1);
///     TupleLists::<usize, f64, Malloc, 20>::items(pair).write(3.14);
///     pairs.put(pair, 2);
/// }
/// assert_eq!(pairs.stats(2).unwrap().free, 1);
/// ```
pub struct TupleLists<H, E, A: MemAlloc, const LENGTHS: usize> {
    /// # Invariant
    ///
    /// Every object in `stacks[i]` came from `lower`, holds no values, and has room for a header
    /// and i + 1 items.
    stacks: [BoundedStack<FreeObject>; LENGTHS],
    lower: A,
    of: PhantomData<fn() -> (H, E)>,
}

/// Items that are aligned to more than 16 bytes are rejected at compile time.
///
/// ```
/// # use object_cache::cpython::TupleLists;
/// # use raw_mem::Malloc;
/// #[repr(align(16))]
/// struct Item(u8);
/// TupleLists::<(), Item, _, 4>::new(10, Malloc);
/// ```
///
/// ```compile_fail,E0080
/// # use object_cache::cpython::TupleLists;
/// # use raw_mem::Malloc;
/// #[repr(align(32))]
/// struct Item(u8);
/// TupleLists::<(), Item, _, 4>::new(10, Malloc);
/// ```
#[cfg(doctest)]
struct AnObjectIsAlignedToAtMost16Bytes;

// SAFETY: the stacks own their storage, which another thread may free because `A` is `Send`.
unsafe impl<H, E, A: MemAlloc + Send, const LENGTHS: usize> Send for TupleLists<H, E, A, LENGTHS> {}

impl<H, E, A: MemAlloc, const LENGTHS: usize> TupleLists<H, E, A, LENGTHS> {
    const ALIGN: usize =
        if align_of::<H>() > align_of::<E>() { align_of::<H>() } else { align_of::<E>() };

    /// The offset of the items, in bytes.
    const ITEMS: usize = size_of::<H>().next_multiple_of(align_of::<E>());

    /// Creates empty lists, each of which retains at most `bound` free objects. Allocates nothing.
    ///
    /// A header or item that is aligned to more than 16 bytes is rejected at compile time.
    ///
    /// # Panics
    ///
    /// Panics if `bound` is 0.
    pub fn new(bound: u32, lower: A) -> Self {
        const { _ = Storage::new(Self::ITEMS, Self::ALIGN) };
        Self { stacks: array::from_fn(|_| BoundedStack::new(bound)), lower, of: PhantomData }
    }

    /// Returns the layout of an object of `len` items, or `None` if its size overflows.
    fn storage(len: usize) -> Option<Storage> {
        let bytes = size_of::<E>().checked_mul(len)?.checked_add(Self::ITEMS)?;
        Some(Storage::new(bytes, Self::ALIGN))
    }

    fn bytes(len: usize) -> usize {
        Self::storage(len).map_or(usize::MAX, |storage| storage.bytes)
    }

    #[inline]
    fn stack(&self, len: usize) -> Option<&BoundedStack<FreeObject>> {
        // Length 0 wraps to an index beyond the end of `stacks`, so it has no stack.
        self.stacks.get(len.wrapping_sub(1))
    }

    /// Takes uninitialised storage for an object of `len` items.
    ///
    /// Returns `None` if the allocation fails, or if the block is not aligned for the object.
    #[inline]
    pub fn take(&self, len: usize) -> Option<NonNull<H>> {
        match self.stack(len).and_then(BoundedStack::take) {
            Some(free) => Some(free.cast()),
            None => self.take_below(len),
        }
    }

    #[cold]
    #[inline(never)]
    fn take_below(&self, len: usize) -> Option<NonNull<H>> {
        if let Some(stack) = self.stack(len) {
            stack.count_miss();
        }
        Self::storage(len)?.allocate(&self.lower).map(NonNull::cast)
    }

    /// Returns the storage of an object to the cache.
    ///
    /// # Safety
    ///
    /// - `storage` must have been returned by a call of [`take`](Self::take) on this cache, with
    ///   the same `len`.
    /// - Any value in `storage` must already have been dropped or moved out.
    /// - The caller must not use `storage` after this call.
    #[inline]
    pub unsafe fn put(&self, storage: NonNull<H>, len: usize) {
        let refused = match self.stack(len) {
            // SAFETY: the caller gives up the storage, which holds no value (contract).
            // INVARIANT: the storage came from `take` with this length, so it came from `lower`.
            Some(stack) => match unsafe { stack.put(storage.cast()) } {
                Ok(()) => return,
                Err(refused) => refused,
            },
            None => storage.cast(),
        };
        // SAFETY: no stack owns `refused`, which came from `lower`.
        unsafe { self.put_below(refused) };
    }

    /// # Safety
    ///
    /// - `lower` must have allocated `free`, which must not hold a value.
    /// - The caller must not use `free` afterwards.
    #[cold]
    #[inline(never)]
    unsafe fn put_below(&self, free: NonNull<FreeObject>) {
        // SAFETY: `free` came from `lower` and is not used again (contract).
        unsafe { self.lower.free(Some(free.cast())) }
    }

    /// Returns a pointer to the first item of an object.
    ///
    /// # Safety
    ///
    /// - `object` must be storage from [`take`](Self::take) of a cache of this type, or a live
    ///   block at least as large.
    #[inline]
    pub unsafe fn items(object: NonNull<H>) -> NonNull<E> {
        // SAFETY: the storage of an object extends at least to the start of its items (contract).
        unsafe { object.byte_add(Self::ITEMS).cast() }
    }

    /// Returns the storage of all free objects to the allocator below the cache.
    ///
    /// If that allocator panics, the storage that it has not received yet stays in the cache.
    pub fn clear(&self) -> Cleared {
        let mut cleared = Cleared::default();
        for (stack, len) in self.stacks.iter().zip(1..) {
            // SAFETY: the object left its stack, so it came from `lower` without values
            // (invariant).
            let count = stack.clear(|free| unsafe { self.put_below(free) });
            cleared += Cleared::new(count as usize, Self::bytes(len));
        }
        cleared
    }

    /// Returns the figures of the list for `len` items, or `None` if this length is not cached.
    pub fn stats(&self, len: usize) -> Option<CacheStats> {
        Some(self.stack(len)?.stats(Self::bytes(len)))
    }
}

impl<H, E, A: MemAlloc, const LENGTHS: usize> Cache for TupleLists<H, E, A, LENGTHS> {
    fn clear(&self) -> Cleared {
        self.clear()
    }

    fn each_list(&self, visit: &mut dyn FnMut(Option<usize>, CacheStats)) {
        for (stack, len) in self.stacks.iter().zip(1..) {
            visit(Some(len), stack.stats(Self::bytes(len)));
        }
    }
}

impl<H, E, A: MemAlloc, const LENGTHS: usize> fmt::Debug for TupleLists<H, E, A, LENGTHS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("TupleLists", self, f)
    }
}

impl<H, E, A: MemAlloc, const LENGTHS: usize> Drop for TupleLists<H, E, A, LENGTHS> {
    fn drop(&mut self) {
        let _ = self.clear();
    }
}

#[cfg(test)]
mod tests {
    use raw_mem::Malloc;

    use super::*;
    use crate::testing::{Hooked, below, on_next_free, panic_of};

    type Tuples<A> = TupleLists<u32, u64, A, 3>;

    fn take_and_put<A: MemAlloc>(tuples: &Tuples<A>, len: usize) -> NonNull<u32> {
        let object = tuples.take(len).unwrap();
        // SAFETY: the object came from the cache with this length and holds no values.
        unsafe { tuples.put(object, len) };
        object
    }

    #[test]
    fn an_object_is_aligned_for_its_header_and_for_its_items() {
        assert_eq!(TupleLists::<u32, u64, Malloc, 3>::ALIGN, 8);
        assert_eq!(TupleLists::<u64, u8, Malloc, 3>::ALIGN, 8);
        assert_eq!(TupleLists::<u16, u16, Malloc, 3>::ALIGN, 2);
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

    #[test]
    fn a_clear_that_panics_retains_the_remaining_objects() {
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
    fn objects_of_other_lengths_return_to_the_layer_below_at_once() {
        let (below, live) = below();
        let tuples = Tuples::new(2, below);
        for len in [0, 4, 1000] {
            take_and_put(&tuples, len);
            assert_eq!((live.count(), tuples.stats(len)), (0, None));
        }
    }

    #[test]
    fn a_length_that_exceeds_the_address_space_is_refused() {
        let tuples = Tuples::new(2, Malloc);
        assert_eq!(tuples.take(usize::MAX), None);
        assert_eq!(tuples.take(usize::MAX / 8), None);
    }

    #[test]
    fn clearing_reports_the_bytes_of_each_length() {
        let (below, live) = below();
        let tuples = Tuples::new(2, below);
        take_and_put(&tuples, 1);
        take_and_put(&tuples, 3);
        // The header of 4 bytes is padded to 8, because the items need that alignment.
        assert_eq!(tuples.clear(), Cleared { objects: 2, bytes: 16 + 32 });
        assert_eq!(live.count(), 0);
    }

    #[test]
    fn dropping_the_cache_returns_all_storage() {
        let (below, live) = below();
        let tuples = Tuples::new(2, below);
        for len in 1..=3 {
            take_and_put(&tuples, len);
        }
        drop(tuples);
        assert_eq!(live.count(), 0);
    }

    #[test]
    fn the_figures_name_the_lengths() {
        let tuples = Tuples::new(2, Malloc);
        take_and_put(&tuples, 2);
        let mut lists = std::vec![];
        tuples.each_list(&mut |length, stats| lists.push((length, stats.free)));
        assert_eq!(lists, [(Some(1), 0), (Some(2), 1), (Some(3), 0)]);
    }
}
