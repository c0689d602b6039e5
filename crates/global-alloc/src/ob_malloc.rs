//! The global allocator, which allocates from the heaps of the process's threads.

use std::{
    alloc::{GlobalAlloc, Layout},
    ptr::{self, NonNull},
    time::Duration,
};

use obmalloc::{BlockPtr, Blocks, LargeBlock, LiveBlock, NewLarge, SizeClass};
use raw_mem::{HugePages, LimitReached, Limits, MemoryPressure};
use thread_heap::{Figures, PerThread, ThreadMalloc};

use crate::{
    classes::Pools,
    foreign,
    layouts::{Init, Layouts},
};

/// The global allocator, which serves all sizes from the heaps of the process's threads.
///
/// Each request above 480 KiB gets its own mapping. The C library's `malloc` is never called.
///
/// ```
/// use global_alloc::ObMalloc;
///
/// #[global_allocator]
/// static GLOBAL: ObMalloc = ObMalloc::new();
///
/// let words: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
/// assert_eq!(words.concat().len(), 2890);
/// ```
///
/// `ObMalloc` can also be the allocator of a single collection, through the trait `Allocator` of
/// the crate allocator-api2. The feature `allocator-api2-02` enables this for version 0.2 of that
/// crate, and the feature `allocator-api2-04` for version 0.4:
#[cfg_attr(feature = "allocator-api2-04", doc = "```")]
#[cfg_attr(not(feature = "allocator-api2-04"), doc = "```ignore")]
/// # use allocator_api2_04 as allocator_api2;
/// use allocator_api2::vec::Vec;
/// use global_alloc::ObMalloc;
///
/// let mut numbers = Vec::new_in(ObMalloc);
/// numbers.extend([1, 2, 3]);
/// assert_eq!(numbers.iter().sum::<i32>(), 6);
/// ```
///
/// All values of this type denote the same allocator, because all of its state belongs to the
/// process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ObMalloc;

impl ObMalloc {
    /// Creates the allocator.
    pub const fn new() -> Self {
        Self
    }

    /// Returns as much unused memory to the system as the calling thread can.
    ///
    /// A thread should call this function before it waits for a long time. The function:
    ///
    /// - sends the blocks that this thread has freed to the heaps that own them,
    /// - reclaims the blocks of this thread's heap that other threads have freed,
    /// - unmaps the empty arenas of this thread's heap and those that the process retains,
    /// - purges the pages of this thread's heap, and of the heaps of ended threads, that hold no
    ///   block in use,
    /// - purges the pages of other heaps that hold only freed blocks.
    ///
    /// The result is the number of bytes returned to the system. Some of these bytes may never have
    /// been in memory.
    ///
    /// ```
    /// # use global_alloc::ObMalloc;
    /// drop((0..100_000).map(Box::new).collect::<Vec<_>>());
    /// let bytes = ObMalloc::new().flush();
    /// println!("{} KiB went back to the system", bytes >> 10);
    /// ```
    pub fn flush(self) -> usize {
        PerThread.flush()
    }

    /// Sets when the heaps return free memory to the system automatically.
    ///
    /// A heap returns memory to the system once the memory has been free for the time `decay`. The
    /// default is one second. If `decay` is zero, free memory is returned immediately. If `decay`
    /// is `None`, only [`flush`](Self::flush) returns memory. The heap of a thread that makes no
    /// requests does not return memory automatically.
    ///
    /// Call this function at program start, because it affects only the calling thread's heap and
    /// heaps that are opened later.
    ///
    /// ```
    /// # use global_alloc::ObMalloc;
    /// ObMalloc::new().set_decay(Some(std::time::Duration::from_millis(200)));
    /// ```
    pub fn set_decay(self, decay: Option<Duration>) {
        PerThread.set_decay(decay);
    }

    /// Sets whether the heaps use huge pages. The default is [`HugePages::Off`].
    ///
    /// Returning a part of a huge page to the system breaks up the huge page. A heap that uses huge
    /// pages therefore returns only whole arenas, and keeps the free parts of other arenas. It
    /// returns these parts only while memory is short or during a [`flush`](Self::flush).
    ///
    /// Call this function at program start. A heap that another thread has opened before this call
    /// does not get the new setting. It still returns free parts of its arenas, which breaks up
    /// huge pages.
    ///
    /// ```
    /// # use global_alloc::{HugePages, ObMalloc};
    /// ObMalloc::new().use_huge_pages(HugePages::Advise);
    /// ```
    pub fn use_huge_pages(self, huge: HugePages) {
        PerThread.use_huge_pages(huge);
    }

    /// Makes the heaps return unused memory to the system while `pressure` reports that memory is
    /// short.
    ///
    /// Memory is short, for example, when a container is near its memory limit.
    ///
    /// Call this function once, at program start. Later calls have no effect. The setting applies
    /// to the calling thread's heap and to heaps that are opened later, but not to heaps that other
    /// threads have already opened.
    ///
    /// ```
    /// # use global_alloc::{MemoryPressure, ObMalloc};
    /// ObMalloc::new().trim_when_short(MemoryPressure::of_process());
    /// ```
    pub fn trim_when_short(self, pressure: MemoryPressure) {
        PerThread.trim_when_short(pressure);
    }

    /// Counts the memory of the process, without stopping other threads.
    ///
    /// Other threads can allocate and free memory during the call, so the returned counts are
    /// approximate. Only threads that need to map or unmap memory wait until the call ends. The
    /// call takes about a microsecond for each MiB of mapped memory.
    ///
    /// ```
    /// # use global_alloc::{Detail, ObMalloc};
    /// #[global_allocator]
    /// static GLOBAL: ObMalloc = ObMalloc::new();
    ///
    /// let block = vec![1_u8; 1 << 20];
    /// let figures = GLOBAL.stats();
    /// assert!(figures.allocated() >= block.len() && figures.mapped() >= figures.active());
    /// println!("{figures}");
    /// let mut metrics = String::new();
    /// figures.write_prometheus(&mut metrics, Detail::Kinds)?;
    /// assert!(metrics.contains("obmalloc_kind_blocks{kind=\"large\"} 1\n"));
    /// # Ok::<(), std::fmt::Error>(())
    /// ```
    pub fn stats(self) -> Figures {
        PerThread.figures()
    }

    /// Calls `visit` with each block in use, except for blocks above 480 KiB. O(blocks).
    ///
    /// # Safety
    ///
    /// - No other thread may allocate or free during the call.
    /// - `visit` must neither allocate nor free.
    ///
    /// ```
    /// # use global_alloc::ObMalloc;
    /// #[global_allocator]
    /// static GLOBAL: ObMalloc = ObMalloc::new();
    ///
    /// let text = String::from("nineteen characters");
    /// let (mut blocks, mut is_found) = (0, false);
    /// // SAFETY: the program has no other thread, and the closure does not allocate.
    /// unsafe {
    ///     GLOBAL.for_each_block(|block| {
    ///         blocks += 1;
    ///         is_found |= block.start.as_ptr().cast_const() == text.as_ptr();
    ///     });
    /// }
    /// assert!(blocks > 0 && is_found);
    /// ```
    pub unsafe fn for_each_block(self, visit: impl FnMut(LiveBlock)) {
        // SAFETY: the contract is the same.
        unsafe { PerThread.for_each_block(visit) };
    }

    /// Limits the memory that is mapped for the process. Memory already in use is not affected.
    ///
    /// A request that would exceed the hard limit fails as if the system had no memory left. The
    /// first request that exceeds the soft limit causes a warning. The limits are checked only when
    /// memory is mapped, so other requests cost nothing extra.
    ///
    /// ```
    /// # use global_alloc::{Limits, ObMalloc};
    /// #[global_allocator]
    /// static GLOBAL: ObMalloc = ObMalloc::new();
    ///
    /// GLOBAL.set_limits(Limits::hard(64 << 20));
    /// assert!(Vec::<u8>::new().try_reserve(100 << 20).is_err());
    /// assert!(Vec::<u8>::new().try_reserve(10 << 20).is_ok());
    /// ```
    pub fn set_limits(self, limits: Limits) {
        PerThread.set_limits(limits);
    }

    /// Sets a callback, which is called before a request is refused because of the hard limit.
    ///
    /// The callback may allocate and free memory, for example to empty one of the program's caches.
    /// If it returns true, the request that exceeded the hard limit is tried again. If the callback
    /// itself makes a request that exceeds the limit, that request fails without another call of
    /// the callback. If the callback panics, the process is aborted, because an allocation must not
    /// unwind.
    pub fn before_refusal(self, callback: fn(LimitReached) -> bool) {
        PerThread.before_refusal(callback);
    }

    /// Returns the number of bytes that the program may use at `ptr`. It is at least the requested
    /// size.
    ///
    /// A block can have more bytes than were requested. The additional bytes are uninitialised, and
    /// their contents may be lost when the block is reallocated. The caller must still free the
    /// block with the layout that was requested.
    ///
    /// # Safety
    ///
    /// - `ptr` must point to memory that this allocator returned for a layout of at least one byte.
    ///   The dangling pointer of an empty `Vec`, for example, is not allowed.
    /// - The memory must not have been freed.
    ///
    /// ```
    /// # use global_alloc::ObMalloc;
    /// #[global_allocator]
    /// static GLOBAL: ObMalloc = ObMalloc::new();
    ///
    /// let text = String::from("nineteen characters");
    /// // SAFETY: the string has memory of the global allocator.
    /// assert_eq!(unsafe { GLOBAL.usable_size(text.as_ptr()) }, 32);
    /// ```
    pub unsafe fn usable_size(self, ptr: *const u8) -> usize {
        // SAFETY: this allocator never returns memory at the null address.
        let ptr = unsafe { NonNull::new_unchecked(ptr.cast_mut()) };
        // SAFETY: the memory is live, and came from the process's heaps (contract).
        unsafe { ThreadMalloc.usable_size(ptr) }
    }
}

/// Allocates a block when the free list of `class` is empty.
#[cold]
#[inline(never)]
fn alloc_block_slow(class: SizeClass<Pools>) -> Option<BlockPtr> {
    PerThread.alloc(class)
}

/// Serves a request of `size` bytes for which the free list of its size class has no block.
#[cold]
#[inline(never)]
fn alloc_sized_slow(size: usize) -> Option<BlockPtr> {
    PerThread.alloc(SizeClass::of(size)?)
}

// SAFETY: the blocks come from the heaps of the process's threads, which promise the alignment.
unsafe impl Layouts for ObMalloc {
    #[inline]
    fn prepare(&self) {
        PerThread.prepare();
    }

    #[inline]
    fn alloc_block(&self, class: SizeClass<Pools>) -> Option<BlockPtr> {
        match PerThread.alloc_listed(class) {
            Some(block) => Some(block),
            None => alloc_block_slow(class),
        }
    }

    #[inline]
    fn alloc_linked_block(&self, size: usize) -> Option<BlockPtr> {
        match PerThread.alloc_linked(size) {
            Some(block) => Some(block),
            None => alloc_sized_slow(size),
        }
    }

    #[inline]
    fn alloc_unlinked_block(&self, size: usize) -> Option<BlockPtr> {
        match PerThread.alloc_unlinked(size) {
            Some(block) => Some(block),
            None => alloc_sized_slow(size),
        }
    }

    fn alloc_zeroed_block(&self, class: SizeClass<Pools>, bytes: usize) -> Option<BlockPtr> {
        PerThread.alloc_zeroed(class, bytes)
    }

    #[inline]
    unsafe fn free_block(&self, block: BlockPtr) {
        // SAFETY: the block came from these heaps (contract of `free_block`).
        unsafe { PerThread.free(block) };
    }

    #[inline]
    unsafe fn free_linked_block(&self, block: BlockPtr) {
        // SAFETY: the block is linked and came from these heaps (contract).
        unsafe { PerThread.free_linked(block) };
    }

    #[inline]
    unsafe fn free_span(&self, block: BlockPtr) {
        // SAFETY: the block is a span and came from these heaps (contract).
        unsafe { PerThread.free_span(block) };
    }

    fn alloc_aligned_block(&self, class: SizeClass<Pools>, align: usize) -> Option<BlockPtr> {
        PerThread.alloc_aligned(class, align)
    }

    fn alloc_large(&self, size: usize, align: usize) -> Option<NewLarge> {
        PerThread.alloc_large(size, align)
    }

    unsafe fn free_large(&self, block: LargeBlock) {
        // SAFETY: the block came from `PerThread`, and is not used again (contract).
        unsafe { PerThread.free_large(block) };
    }

    fn alloc_zeroed_large(&self, size: usize, align: usize) -> Option<LargeBlock> {
        PerThread.alloc_zeroed_large(size, align)
    }

    unsafe fn resize_large(
        &self,
        block: LargeBlock,
        size: usize,
        room: usize,
    ) -> Option<LargeBlock> {
        // SAFETY: the block came from `PerThread`. Only the result is used (contract).
        unsafe { PerThread.resize_large(block, size, room) }
    }

    #[inline]
    unsafe fn check(action: &str, ptr: NonNull<u8>, layout: Layout) {
        if cfg!(debug_assertions) {
            // SAFETY: a pointer into an arena is a block in use (contract of `Layouts::check`).
            unsafe { foreign::check(action, ptr, layout) };
        }
    }
}

#[inline]
fn or_null(start: Option<NonNull<u8>>) -> *mut u8 {
    start.map_or(ptr::null_mut(), NonNull::as_ptr)
}

// SAFETY: each allocation fits its layout and overlaps no other memory in use (contract of
// `Layouts`). No function here unwinds.
unsafe impl GlobalAlloc for ObMalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        or_null(self.allocate(layout, Init::Uninit))
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        or_null(self.allocate(layout, Init::Zeroed))
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: this allocator never returns memory at the null address.
        let ptr = unsafe { NonNull::new_unchecked(ptr) };
        // SAFETY: the memory is live, came from this allocator and is not used again (contract).
        unsafe { self.deallocate(ptr, layout) };
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: this allocator never returns memory at the null address.
        let ptr = unsafe { NonNull::new_unchecked(ptr) };
        // SAFETY: the new size and the alignment are a valid layout (contract of `realloc`).
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the memory is live and came from this allocator for `layout` (contract).
        or_null(unsafe { self.reallocate(ptr, layout, new) })
    }
}
