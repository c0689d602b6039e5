//! A heap of its own, for collections that go away at once.

use std::{alloc::Layout, cell::UnsafeCell, fmt, num::NonZero, ptr::NonNull};

use obmalloc::{BlockPtr, Heap, SizeClass, Stats};
use raw_mem::{Malloc, MmapArenas};
use thread_heap::PerThread;

use crate::{any_layout::AnyLayout, large, large_list::LargeList, layout::Pools};

/// The single-owner heap inside.
type OwnHeap = Heap<MmapArenas, Malloc, Pools>;

/// A heap apart from all others, used by reference by what is on one thread.
///
/// Dropping it, or [resetting](Self::reset) it, gives all its memory back at once, without a walk
/// over the small objects: a collection that lives in it can be forgotten, if its items need no
/// drop. What is larger than 512 bytes is on a list, and freed one by one.
///
/// With the feature `allocator-api2-02` or `allocator-api2-04`, `&LocalHeap` is an `Allocator` of
/// that version.
///
/// ```
/// use std::alloc::Layout;
/// use global_alloc::LocalHeap;
///
/// let heap = LocalHeap::new();
/// let layout = Layout::new::<[u64; 4]>();
/// let first = heap.allocate(layout).expect("there is memory");
/// assert_eq!(heap.stats().bytes.in_use, 32);
/// // SAFETY: the memory came from this heap for this layout, and is not used again.
/// unsafe { heap.deallocate(first, layout) };
/// ```
pub struct LocalHeap {
    /// # Invariant
    ///
    /// Nobody is in it between two calls, and no call comes from within one.
    heap: UnsafeCell<OwnHeap>,
    large: LargeList,
}

impl LocalHeap {
    /// A heap that has no memory yet.
    pub const fn new() -> Self {
        Self {
            heap: UnsafeCell::new(Heap::with_geometry(MmapArenas::new(), Malloc)),
            large: LargeList::new(),
        }
    }

    /// Memory for `layout`, uninitialised; `None` when there is none.
    ///
    /// For no bytes this is an aligned pointer to nothing.
    #[inline]
    pub fn allocate(&self, layout: Layout) -> Option<NonNull<u8>> {
        if layout.size() == 0 { Some(nothing(layout)) } else { AnyLayout::allocate(self, layout) }
    }

    /// As [`allocate`](Self::allocate), all zero.
    #[inline]
    pub fn allocate_zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
        if layout.size() == 0 {
            return Some(nothing(layout));
        }
        AnyLayout::allocate_zeroed(self, layout)
    }

    /// Takes memory back.
    ///
    /// # Safety
    ///
    /// `ptr` is live memory of this heap for `layout`, and is not used again.
    #[inline]
    pub unsafe fn deallocate(&self, ptr: NonNull<u8>, layout: Layout) {
        if layout.size() > 0 {
            // SAFETY: the caller's promise.
            unsafe { AnyLayout::deallocate(self, ptr, layout) };
        }
    }

    /// Makes memory for `old` memory for `new`, moving it if it must, with its contents up to the
    /// smaller of both sizes. On `None` it stands untouched.
    ///
    /// # Safety
    ///
    /// `ptr` is live memory of this heap for `old`; it is replaced by what comes back.
    pub unsafe fn reallocate(
        &self,
        ptr: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Option<NonNull<u8>> {
        if old.size() == 0 {
            return self.allocate(new);
        }
        if new.size() == 0 {
            // SAFETY: the caller's promise.
            unsafe { self.deallocate(ptr, old) };
            return Some(nothing(new));
        }
        // SAFETY: the caller's promise.
        unsafe { AnyLayout::reallocate(self, ptr, old, new) }
    }

    /// Gives all memory back, whatever is in use: what borrowed the heap is gone.
    pub fn reset(&mut self) {
        // SAFETY: the heap is borrowed alone, so no reference to it is left through which
        // anybody could hold a block.
        unsafe { self.heap.get_mut().reset() };
        self.large.clear();
    }

    /// Takes a block of `class` when the free list has none. If no arena is available, trims and
    /// retries.
    #[cold]
    #[inline(never)]
    fn block_by_any_means(&self, class: SizeClass<Pools>) -> Option<BlockPtr> {
        // SAFETY: the invariant.
        let request = || unsafe { &mut *self.heap.get() }.alloc(class);
        large::after_trim(request, || self.trim())
    }

    /// Gives back the memory that pools retain, those of this heap and those of the process.
    #[cold]
    fn trim(&self) {
        // SAFETY: the invariant.
        unsafe { &mut *self.heap.get() }.trim();
        PerThread.flush();
    }

    /// Counts what the pools have in use; large memory is not in them. O(pools).
    pub fn stats(&self) -> Stats {
        // SAFETY: the invariant.
        unsafe { &*self.heap.get() }.stats()
    }
}

/// An aligned pointer to no bytes.
fn nothing(layout: Layout) -> NonNull<u8> {
    NonZero::new(layout.align()).map_or(NonNull::dangling(), NonNull::without_provenance)
}

// SAFETY: blocks are those of the heap, which is entered by one thread alone, and what is large is
// on a list of its own.
unsafe impl AnyLayout for LocalHeap {
    #[inline]
    fn block(&self, class: SizeClass<Pools>) -> Option<BlockPtr> {
        // SAFETY: the invariant.
        match unsafe { &*self.heap.get() }.alloc_listed(class) {
            Some(block) => Some(block),
            None => self.block_by_any_means(class),
        }
    }

    #[inline]
    unsafe fn free_block(&self, block: BlockPtr) {
        // SAFETY: the invariant; the block came from this heap.
        unsafe { (*self.heap.get()).free(block) };
    }

    fn large(&self, layout: Layout) -> Option<NonNull<u8>> {
        large::after_trim(|| self.large.alloc(layout), || self.trim())
    }

    fn large_zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
        large::after_trim(|| self.large.alloc_zeroed(layout), || self.trim())
    }

    unsafe fn resize_large(
        &self,
        ptr: NonNull<u8>,
        layout: Layout,
        size: usize,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the caller's promise; a request that fails leaves the memory as it was.
        large::after_trim(|| unsafe { self.large.resize(ptr, layout, size) }, || self.trim())
    }

    unsafe fn free_large(&self, ptr: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.large.free(ptr, layout) };
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
