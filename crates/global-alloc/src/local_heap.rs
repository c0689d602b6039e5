//! A heap for collections that are all dropped together.

use std::{
    alloc::Layout,
    cell::{Cell, UnsafeCell},
    fmt,
    ptr::NonNull,
    time::Duration,
};

use obmalloc::{BlockPtr, Heap, LargeBlock, LiveBlock, NewLarge, PurgePolicy, SizeClass, Stats};
use raw_mem::{
    LimitReached, LimitedArenas, Limits, Malloc, MmapArenas, coarse_now, without_unwinding,
};
use thread_heap::PerThread;

use crate::{
    classes::Pools,
    layouts::{Init, Layouts},
};

type PoolHeap = Heap<LimitedArenas<MmapArenas>, Malloc, Pools>;

/// A heap for collections on one thread, which borrow the heap and are all dropped together.
///
/// When the heap is dropped or [reset](Self::reset), it frees all of its memory. It unmaps
/// allocations of more than 480 KiB one by one, and frees all others at once.
///
/// A program can pass a collection to `mem::forget` instead of dropping it, which saves the time
/// for dropping each item. The heap still frees the memory of the collection. Do this only if the
/// items need not be dropped.
///
/// With the feature `allocator-api2-02` or `allocator-api2-04`, `&LocalHeap` implements `Allocator`
/// of that version of allocator-api2:
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
pub struct LocalHeap {
    /// # Invariant
    ///
    /// No two borrows of this cell's contents overlap. Each method of `LocalHeap` ends its borrow
    /// before it returns, and also before it runs the program's callback, because the callback may
    /// use the heap. Methods never run on two threads at the same time, because the type is not
    /// `Sync`.
    heap: UnsafeCell<PoolHeap>,
    /// `None` while the callback runs.
    before_refusal: Cell<Option<Callback>>,
}

/// A function that a heap calls before it refuses a request because of its limit.
type Callback = Box<dyn FnMut(LimitReached) -> bool + Send>;

impl LocalHeap {
    /// Creates a heap, which allocates no memory before its first request.
    pub const fn new() -> Self {
        Self::with_limits(Limits::NONE)
    }

    /// Creates a heap that maps at most `bytes` bytes. Requests beyond this limit fail.
    ///
    /// The heap takes blocks of up to 480 KiB from arenas of 1 MiB. An arena counts in full towards
    /// the limit, even if few of its blocks are in use. The heap checks the limit only when it maps
    /// memory, so all other requests cost nothing extra.
    ///
    /// ```
    /// # use std::alloc::Layout;
    /// # use global_alloc::LocalHeap;
    /// let heap = LocalHeap::with_limit(4 << 20);
    /// assert!(heap.alloc(Layout::new::<[u8; 1 << 20]>()).is_some());
    /// assert!(heap.alloc(Layout::new::<[u8; 4 << 20]>()).is_none());
    /// ```
    pub const fn with_limit(bytes: usize) -> Self {
        Self::with_limits(Limits::hard(bytes))
    }

    /// Creates a heap with a hard and a soft limit.
    pub const fn with_limits(limits: Limits) -> Self {
        let arenas = LimitedArenas::new(MmapArenas::new(), limits);
        Self {
            heap: UnsafeCell::new(Heap::with_geometry(arenas, Malloc)),
            before_refusal: Cell::new(None),
        }
    }

    /// Sets a callback, which is called before a request is refused because of the hard limit.
    ///
    /// The callback may use this heap, for example to free memory. If it returns true, the heap
    /// repeats the request that exceeded the hard limit. If the callback itself makes a request
    /// that exceeds the limit, that request fails without another call of the callback. If the
    /// callback panics, the process is aborted, because an allocation must not unwind.
    pub fn before_refusal(&mut self, callback: impl FnMut(LimitReached) -> bool + Send + 'static) {
        self.before_refusal.set(Some(Box::new(callback)));
    }

    /// Allocates uninitialised memory for `layout`, or returns `None` if none is available.
    ///
    /// An empty layout gets an aligned pointer to zero bytes.
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

    /// Allocates zeroed memory for `layout`, or returns `None` if none is available.
    #[inline]
    pub fn alloc_zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.allocate(layout, Init::Zeroed)
    }

    /// Frees the memory at `ptr`.
    ///
    /// # Safety
    ///
    /// - `ptr` must be live memory that this heap allocated for `layout`.
    /// - The memory must not be used again.
    #[inline]
    pub unsafe fn dealloc(&self, ptr: NonNull<u8>, layout: Layout) {
        // SAFETY: both functions have the same contract.
        unsafe { self.deallocate(ptr, layout) };
    }

    /// Resizes memory from `old` to `new`, and keeps the contents up to the smaller of the two
    /// sizes.
    ///
    /// The memory moves if necessary. If the result is `None`, the memory at `ptr` is unchanged.
    ///
    /// # Safety
    ///
    /// - `ptr` must point to live memory of this heap.
    /// - `old` must be the layout for which the heap last allocated or resized this memory.
    /// - If the function returns a pointer other than `ptr`, the caller must not use `ptr` again.
    pub unsafe fn realloc(
        &self,
        ptr: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Option<NonNull<u8>> {
        // SAFETY: both functions have the same contract.
        unsafe { self.reallocate(ptr, old, new) }
    }

    /// Frees all memory of the heap.
    ///
    /// No collection can use the memory afterwards, because each of them borrows the heap.
    pub fn reset(&mut self) {
        // SAFETY: the heap is borrowed mutably, so its blocks are no longer in use.
        unsafe { self.heap.get_mut().reset() };
    }

    /// Sets when the heap returns free memory to the system automatically.
    ///
    /// The heap returns memory to the system once the memory has been free for the time `decay`. By
    /// default, `decay` is `None`, and the heap returns memory only when [`trim`](Self::trim) is
    /// called.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use global_alloc::LocalHeap;
    /// let mut heap = LocalHeap::new();
    /// heap.set_decay(Some(Duration::from_secs(1)));
    /// ```
    pub fn set_decay(&mut self, decay: Option<Duration>) {
        // We use our own clock `coarse_now` rather than a clock that the program supplies. The
        // clock is read while a method of `LocalHeap` borrows the inner heap mutably. A clock of
        // the program could call another method of the same `LocalHeap`, which would borrow the
        // inner heap a second time.
        let policy = |decay| PurgePolicy::after(decay, coarse_now);
        self.heap.get_mut().set_purge_policy(decay.map_or(PurgePolicy::NEVER, policy));
    }

    /// Returns all unused memory of the heap to the system.
    ///
    /// The result is the number of bytes returned to the system. Some of these bytes may never have
    /// been in memory.
    pub fn trim(&self) -> usize {
        // SAFETY: nothing else borrows the heap (its invariant).
        unsafe { &mut *self.heap.get() }.trim()
    }

    /// Counts the memory in use. O(pools).
    ///
    /// The field `large` counts allocations of more than 480 KiB. The field `bytes` counts all
    /// others.
    pub fn stats(&self) -> Stats {
        // SAFETY: nothing else borrows the heap (its invariant).
        unsafe { &*self.heap.get() }.stats()
    }

    /// Calls `visit` with each block in use. O(blocks).
    pub fn for_each_block(&mut self, visit: impl FnMut(LiveBlock)) {
        self.heap.get_mut().for_each_block(visit);
    }

    /// Allocates a block of `class` when the free list of this class is empty.
    ///
    /// If there is no memory, the function trims the heap and tries again (see `after_trim`).
    #[cold]
    #[inline(never)]
    fn alloc_block_slow(&self, class: SizeClass<Pools>) -> Option<BlockPtr> {
        self.after_trim(|heap| heap.alloc(class))
    }

    /// Calls `request`, which allocates from this `LocalHeap`. If `request` fails, this function
    /// returns unused memory of this `LocalHeap` to the system and calls `request` again.
    ///
    /// The first call of `request` can fail because of the hard limit, or because the system has no
    /// memory left. In the second case, the function also flushes [`PerThread`] before it calls
    /// `request` again, because the calling thread's heap in `PerThread` may hold unused memory.
    ///
    /// If the second call of `request` exceeds the hard limit, the function calls the callback that
    /// the program passed to [`before_refusal`](Self::before_refusal()). If the callback returns
    /// true, the function calls `request` a third and last time.
    fn after_trim<T>(&self, request: impl Fn(&mut PoolHeap) -> Option<T>) -> Option<T> {
        // SAFETY: nothing else borrows the heap (its invariant).
        request(unsafe { &mut *self.heap.get() }).or_else(|| {
            // SAFETY: as above.
            let heap = unsafe { &mut *self.heap.get() };
            let exceeds_limit = heap.source().usage().refusal().is_some();
            heap.trim();
            if !exceeds_limit {
                PerThread.flush();
            }
            // SAFETY: as above.
            let repeated = request(unsafe { &mut *self.heap.get() });
            if repeated.is_some() || !self.ask_before_refusal() {
                return repeated;
            }
            // SAFETY: as above.
            let heap = unsafe { &mut *self.heap.get() };
            heap.unmap_free_arenas();
            request(heap)
        })
    }

    /// Calls the program's callback if the last request exceeded the hard limit.
    ///
    /// The program sets the callback with [`before_refusal`](Self::before_refusal()). This function
    /// returns true if the callback has returned true, so that the caller repeats the request.
    #[cold]
    fn ask_before_refusal(&self) -> bool {
        // SAFETY: nothing else borrows the heap (its invariant).
        let reached = unsafe { &*self.heap.get() }.source().usage().refusal();
        let Some(reached) = reached else { return false };
        let Some(mut callback) = self.before_refusal.take() else { return false };
        let may_retry = without_unwinding(|| callback(reached));
        self.before_refusal.set(Some(callback));
        may_retry
    }
}

// SAFETY: the blocks come from the inner heap, which only one thread at a time can access. The heap
// keeps `BlockStart::Aligned`, so its blocks are aligned.
unsafe impl Layouts for LocalHeap {
    #[inline]
    fn alloc_block(&self, class: SizeClass<Pools>) -> Option<BlockPtr> {
        // SAFETY: nothing else borrows the heap (its invariant).
        match unsafe { &*self.heap.get() }.alloc_listed(class) {
            Some(block) => Some(block),
            None => self.alloc_block_slow(class),
        }
    }

    #[inline]
    fn alloc_linked_block(&self, size: usize) -> Option<BlockPtr> {
        // SAFETY: nothing else borrows the heap (its invariant).
        match unsafe { &*self.heap.get() }.alloc_linked(size) {
            Some(block) => Some(block),
            None => self.alloc_block_slow(SizeClass::of(size)?),
        }
    }

    #[inline]
    fn alloc_unlinked_block(&self, size: usize) -> Option<BlockPtr> {
        // SAFETY: nothing else borrows the heap (its invariant).
        match unsafe { &*self.heap.get() }.alloc_unlinked(size) {
            Some(block) => Some(block),
            None => self.alloc_block_slow(SizeClass::of(size)?),
        }
    }

    fn alloc_zeroed_block(&self, class: SizeClass<Pools>, bytes: usize) -> Option<BlockPtr> {
        self.after_trim(|heap| heap.alloc_zeroed(class, bytes))
    }

    fn alloc_aligned_block(&self, class: SizeClass<Pools>, align: usize) -> Option<BlockPtr> {
        self.after_trim(|heap| heap.alloc_aligned(class, align))
    }

    fn alloc_large(&self, size: usize, align: usize) -> Option<NewLarge> {
        if !LargeBlock::may_exist::<Pools>(size) {
            return None;
        }
        self.after_trim(|heap| heap.alloc_large(size, align))
    }

    unsafe fn free_large(&self, block: LargeBlock) {
        // SAFETY: nothing else borrows the heap (its invariant). It allocated the block (contract).
        unsafe { (*self.heap.get()).free_large(block) };
    }

    unsafe fn resize_large(
        &self,
        block: LargeBlock,
        size: usize,
        room: usize,
    ) -> Option<LargeBlock> {
        // SAFETY: the block is in use (contract).
        let can_move = unsafe { block.can_move::<Pools>() };
        if !can_move || !LargeBlock::may_exist::<Pools>(size) {
            return None;
        }
        // SAFETY: the heap allocated the block (contract). A call that fails leaves it unchanged.
        let resize = |heap: &mut PoolHeap, size| unsafe { heap.resize_large(block, size) };
        if room > size {
            // SAFETY: nothing else borrows the heap (its invariant).
            let resized = resize(unsafe { &mut *self.heap.get() }, room);
            if resized.is_some() {
                return resized;
            }
        }
        self.after_trim(|heap| resize(heap, size))
    }

    #[inline]
    unsafe fn free_block(&self, block: BlockPtr) {
        // SAFETY: nothing else borrows the heap (its invariant). It allocated the block (contract).
        unsafe { (*self.heap.get()).free(block) };
    }

    #[inline]
    unsafe fn free_linked_block(&self, block: BlockPtr) {
        // SAFETY: nothing else borrows the heap (its invariant). It allocated the block, which is
        // small (contract).
        unsafe { (*self.heap.get()).free_linked_or_span(block) };
    }
}

impl Default for LocalHeap {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for LocalHeap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats();
        let in_use = stats.bytes.in_use + stats.large.bytes;
        f.debug_struct("LocalHeap").field("bytes_in_use", &in_use).finish()
    }
}
