//! A heap for collections that are dropped together.

use std::{alloc::Layout, cell::UnsafeCell, fmt, ptr::NonNull};

use obmalloc::{BlockPtr, Heap, SizeClass, Stats};
use raw_mem::{Malloc, MmapArenas};
use thread_heap::PerThread;

use crate::{
    classes::Pools,
    large::{Init, after_trim},
    large_list::LargeList,
    layouts::Layouts,
};

type PoolHeap = Heap<MmapArenas, Malloc, Pools>;

/// A heap that shares no memory with others, for collections on one thread that borrow it.
///
/// Dropping or [resetting](Self::reset) the heap frees all of its memory. It does not visit small
/// objects one by one, so a collection whose items need no drop can be forgotten. Memory of more
/// than 512 bytes is on a list and is freed one by one.
///
/// With the feature `allocator-api2-02` or `allocator-api2-04`, `&LocalHeap` implements that
/// version's `Allocator`:
///
#[cfg_attr(feature = "allocator-api2-04", doc = "```")]
#[cfg_attr(not(feature = "allocator-api2-04"), doc = "```ignore")]
/// # use allocator_api2_04 as allocator_api2;
/// use allocator_api2::vec::Vec;
/// use global_alloc::LocalHeap;
///
/// let mut heap = LocalHeap::new();
/// let mut numbers = Vec::new_in(&heap);
/// numbers.extend([1, 2, 3]);
/// assert_eq!(numbers.iter().sum::<i32>(), 6);
/// std::mem::forget(numbers);
/// heap.reset();
/// ```
///
/// Without these features it serves layouts, see [`alloc`](Self::alloc).
pub struct LocalHeap {
    /// # Invariant
    ///
    /// Not borrowed between two calls. No call is made from within another one, because the heap
    /// calls no code of its user.
    heap: UnsafeCell<PoolHeap>,
    large: LargeList,
}

impl LocalHeap {
    /// Creates a heap. It allocates nothing before its first request.
    pub const fn new() -> Self {
        Self {
            heap: UnsafeCell::new(Heap::with_geometry(MmapArenas::new(), Malloc)),
            large: LargeList::new(),
        }
    }

    /// Allocates memory for `layout`, uninitialised. Returns `None` if there is none.
    ///
    /// An empty layout gets an aligned pointer to nothing.
    ///
    /// ```
    /// # use std::alloc::Layout;
    /// # use global_alloc::LocalHeap;
    /// let heap = LocalHeap::new();
    /// let layout = Layout::new::<[u64; 4]>();
    /// let block = heap.alloc(layout).expect("out of memory");
    /// // SAFETY: the memory came from this heap for this layout, and is not used again.
    /// unsafe { heap.dealloc(block, layout) };
    /// ```
    #[inline]
    pub fn alloc(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.allocate(layout, Init::Uninit)
    }

    /// Allocates memory for `layout`, all zero. Returns `None` if there is none.
    #[inline]
    pub fn alloc_zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.allocate(layout, Init::Zeroed)
    }

    /// Frees memory.
    ///
    /// # Safety
    ///
    /// - `ptr` must be live memory of this heap for `layout`.
    /// - It must not be used again.
    #[inline]
    pub unsafe fn dealloc(&self, ptr: NonNull<u8>, layout: Layout) {
        // SAFETY: the contract is the same.
        unsafe { self.deallocate(ptr, layout) };
    }

    /// Makes memory for `new` out of memory for `old`, and moves it if necessary. Keeps the
    /// contents up to the smaller of both sizes. On `None` the memory has not changed.
    ///
    /// # Safety
    ///
    /// - `ptr` must be live memory of this heap for `old`.
    /// - It must not be used again unless the function returns `None` or the same pointer.
    pub unsafe fn realloc(
        &self,
        ptr: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the contract is the same.
        unsafe { self.reallocate(ptr, old, new) }
    }

    /// Frees all memory, including blocks in use. No collection can still use it, because each of
    /// them would have borrowed the heap.
    pub fn reset(&mut self) {
        // SAFETY: the heap is borrowed mutably, so nobody else can hold a block.
        unsafe { self.heap.get_mut().reset() };
        self.large.clear();
    }

    /// Counts what is in use in the pools. Memory of more than 512 bytes is not included. O(pools).
    pub fn stats(&self) -> Stats {
        // SAFETY: nobody else borrows the heap (its invariant).
        unsafe { &*self.heap.get() }.stats()
    }

    /// Allocates a block of `class` when the free list has none. If no arena is available, trims
    /// the heaps and tries again.
    #[cold]
    #[inline(never)]
    fn alloc_block_slow(&self, class: SizeClass<Pools>) -> Option<BlockPtr> {
        // SAFETY: nobody else borrows the heap (its invariant).
        let request = || unsafe { &mut *self.heap.get() }.alloc(class);
        after_trim(request, || self.trim())
    }
}

// SAFETY: the blocks come from the heap, which only one thread at a time can reach.
unsafe impl Layouts for LocalHeap {
    #[inline]
    fn large_list(&self) -> Option<&LargeList> {
        Some(&self.large)
    }

    #[inline]
    fn alloc_block(&self, class: SizeClass<Pools>) -> Option<BlockPtr> {
        // SAFETY: nobody else borrows the heap (its invariant).
        match unsafe { &*self.heap.get() }.alloc_listed(class) {
            Some(block) => Some(block),
            None => self.alloc_block_slow(class),
        }
    }

    #[inline]
    unsafe fn free_block(&self, block: BlockPtr) {
        // SAFETY: nobody else borrows the heap (its invariant), and the block came from it
        // (contract of `free_block`).
        unsafe { (*self.heap.get()).free(block) };
    }

    /// Trims this heap and those of the process's threads.
    #[cold]
    fn trim(&self) {
        // SAFETY: nobody else borrows the heap (its invariant).
        unsafe { &mut *self.heap.get() }.trim();
        PerThread.flush();
    }
}

impl Default for LocalHeap {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for LocalHeap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalHeap").field("bytes_in_use", &self.stats().bytes.in_use).finish()
    }
}
