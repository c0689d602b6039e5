//! An allocator for requests of any size, on top of a heap and another allocator.
//!
//! ```text
//!   malloc(n) ── 1 ≤ n ≤ threshold ──► the heap ── cannot map an arena ──┐
//!        ├────── n gets a span ──────► the heap ── cannot map an arena ──┤
//!        └────── all other n ──────────────────────────────────────────► the layer below
//!
//!   if the layer below has no memory either: trim the heap, and ask the layer below once more
//!
//!   free(p) ─── p in an arena of the heap ──► the heap
//!        └───── any other p ────────────────► the layer below
//! ```
//!
//! A *span* is a pool with a single block. In our own geometry, requests from [`Rules::spans_from`]
//! to [`Sizes::arena_threshold`] bytes get a span. The geometries that imitate CPython have no
//! spans.
//!
//! CPython: `_PyObject_Malloc`, `_PyObject_Calloc`, `_PyObject_Realloc`, `_PyObject_Free`.
//!
//! [`Rules::spans_from`]: crate::Rules::spans_from
//! [`Sizes::arena_threshold`]: crate::Sizes::arena_threshold

use core::{cmp, ptr::NonNull};

use raw_mem::{MAX_REQUEST, MemAlloc, calloc_size};

use crate::{
    entry::{access::Access, blocks::Blocks},
    geometry::{Geometry, ReallocRule, size_class::SizeClass},
    heap::stats::Stats,
    pool::block::BlockPtr,
};

/// An allocator that serves small requests and spans from a heap, and all other requests from
/// another allocator.
///
/// The geometry determines which requests get a span
/// (see [`Rules::spans_from`](crate::Rules::spans_from)) and how small blocks are aligned
/// (see [`Sizes::alignment`](crate::Sizes::alignment)).
///
/// ```
/// use obmalloc::{GilHeld, Heap, KnownArenas, Pymalloc};
/// use raw_mem::{Malloc, MemAlloc, MmapArenas};
///
/// let arenas = KnownArenas::new(MmapArenas::new(), Malloc);
/// // SAFETY: one thread uses the heap, and neither layer below it calls back.
/// let heap = unsafe { GilHeld::new(Heap::new(arenas, Malloc)) };
/// // SAFETY: malloc does not serve memory of the heap's arenas.
/// let pymalloc = unsafe { Pymalloc::new(heap, Malloc) };
/// let block = pymalloc.malloc(40);
/// assert_eq!(pymalloc.stats().classes()[2].in_use, 1);
/// // SAFETY: the block is live, and is replaced by the result.
/// let block = unsafe { pymalloc.realloc(block, 4000) };
/// assert_eq!(pymalloc.stats().classes()[2].in_use, 0);
/// // SAFETY: the block is live and not used again.
/// unsafe { pymalloc.free(block) };
/// ```
#[derive(Debug)]
pub struct Pymalloc<X, A> {
    heap: X,
    /// # Invariant
    ///
    /// No block of `lower` lies in an arena of `heap`.
    lower: A,
}

/// `Pymalloc::new` is unsafe, because `free` would misbehave if `lower` used memory of the heap:
///
/// ```
/// # use obmalloc::{Heap, KnownArenas, Locked, Pymalloc};
/// # use raw_mem::{Malloc, MmapArenas};
/// let arenas = KnownArenas::new(MmapArenas::new(), Malloc);
/// // SAFETY: malloc does not serve memory of the heap's arenas.
/// unsafe { Pymalloc::new(Locked::new(Heap::new(arenas, Malloc)), Malloc) };
/// ```
///
/// ```compile_fail,E0133
/// # use obmalloc::{Heap, KnownArenas, Locked, Pymalloc};
/// # use raw_mem::{Malloc, MmapArenas};
/// let arenas = KnownArenas::new(MmapArenas::new(), Malloc);
/// Pymalloc::new(Locked::new(Heap::new(arenas, Malloc)), Malloc);
/// ```
#[cfg(doctest)]
struct TheLayerBelowMustNotUseTheHeap;

impl<X, A> Pymalloc<X, A> {
    /// Creates an allocator that serves small requests and spans from `heap`, and all other
    /// requests from `lower`.
    ///
    /// # Safety
    ///
    /// - No block of `lower` may lie in an arena of `heap`, because [`free`](MemAlloc::free) would
    ///   pass this block to `heap`.
    ///
    /// `Malloc` and allocators that map their own pages meet this requirement.
    pub const unsafe fn new(heap: X, lower: A) -> Self {
        Self { heap, lower }
    }

    /// Returns the guarded heap.
    pub const fn access(&self) -> &X {
        &self.heap
    }

    /// Returns the layer below.
    pub const fn lower(&self) -> &A {
        &self.lower
    }
}

impl<X: Access, A> Pymalloc<X, A> {
    /// Walks the heap and returns its statistics. O(pools).
    pub fn stats(&self) -> Stats {
        self.heap.stats()
    }
}

impl<B: Blocks, A: MemAlloc> Pymalloc<B, A> {
    /// Returns the size class of a small request, or `None` for any other request.
    #[inline]
    fn class(size: usize) -> Option<SizeClass<B::Geometry>> {
        SizeClass::of_small(if B::Geometry::RULES.zero_in_pools { cmp::max(size, 1) } else { size })
    }

    /// Returns the size class of a request that the heap serves with a span, or `None` for any
    /// other request.
    #[inline]
    fn span(size: usize) -> Option<SizeClass<B::Geometry>> {
        const { assert!(B::Geometry::RULES.spans_from > B::Geometry::SIZES.pool_size / 2) };
        if size < B::Geometry::RULES.spans_from { None } else { SizeClass::of(size) }
    }

    /// Returns true if a block of `size` bytes stays in place when resized to `new_size` bytes.
    #[inline]
    fn stays(size: usize, new_size: usize) -> bool {
        // This test must come first, because `4 * new_size` could overflow for a larger request.
        if new_size > size {
            return false;
        }
        let needs_it = 4 * new_size > 3 * size;
        match B::Geometry::RULES.realloc {
            ReallocRule::ThreeQuarters => needs_it,
            ReallocRule::WithinClass => {
                let class = Self::class(size);
                needs_it || (class.is_some() && class == Self::class(new_size))
            }
        }
    }

    /// Allocates on the slow path of the heap. If that fails, allocates from the layer below.
    #[cold]
    #[inline(never)]
    fn alloc_unlisted(&self, class: SizeClass<B::Geometry>, size: usize) -> Option<NonNull<u8>> {
        let block = self.heap.alloc(class).map(BlockPtr::into_start);
        block.or_else(|| self.lower_malloc(size))
    }

    /// Allocates a block for a request that is not small.
    ///
    /// The heap serves the request if its size is one for which the geometry provides spans, which
    /// are pools with a single block. Otherwise, the allocator below serves it.
    ///
    /// We never inline this function into `malloc`, so that `malloc` needs no stack frame for a
    /// small request.
    #[inline(never)]
    fn malloc_above(&self, size: usize) -> Option<NonNull<u8>> {
        self.heap.visit();
        let span = Self::span(size).and_then(|class| self.heap.alloc(class));
        span.map(BlockPtr::into_start).or_else(|| self.lower_malloc(size))
    }

    /// Does the same as [`malloc_above`](Self::malloc_above), for `count * size` zeroed bytes. The
    /// product must not overflow.
    #[inline(never)]
    fn calloc_above(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        self.heap.visit();
        let bytes = count * size;
        let span = Self::span(bytes).and_then(|class| self.heap.alloc_zeroed(class, bytes));
        span.map(BlockPtr::into_start).or_else(|| self.lower_calloc(count, size))
    }

    /// Allocates from the layer below. If that fails, trims the heap and tries once more.
    fn lower_malloc(&self, size: usize) -> Option<NonNull<u8>> {
        let request = || self.lower.malloc(size);
        request().or_else(|| self.once_more(size, request))
    }

    /// Allocates `count * size` zeroed bytes from the layer below. The product must not overflow.
    fn lower_calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        let request = || self.lower.calloc(count, size);
        request().or_else(|| self.once_more(count * size, request))
    }

    /// Reallocates a block of the layer below.
    ///
    /// # Safety
    ///
    /// `ptr` must be a live block of the layer below.
    #[inline(never)]
    unsafe fn lower_realloc(&self, ptr: NonNull<u8>, size: usize) -> Option<NonNull<u8>> {
        self.heap.visit();
        // SAFETY: `ptr` is a live block of `lower` (contract), also after a request that failed.
        let request = || unsafe { self.lower.realloc(Some(ptr), size) };
        request().or_else(|| self.once_more(size, request))
    }

    /// Frees a block of the layer below. This function is never inlined, so freeing a small block
    /// needs no stack frame.
    ///
    /// # Safety
    ///
    /// - `ptr` must be a live block of the layer below.
    /// - The block must not be used again.
    #[inline(never)]
    unsafe fn lower_free(&self, ptr: NonNull<u8>) {
        // SAFETY: the contract is the same.
        unsafe { self.lower.free(Some(ptr)) };
    }

    /// Trims the heap, and then repeats a request that the layer below has refused.
    ///
    /// The trim unmaps free arenas that the heap retains, which can make room for the request.
    #[cold]
    #[inline(never)]
    fn once_more(
        &self,
        size: usize,
        request: impl FnOnce() -> Option<NonNull<u8>>,
    ) -> Option<NonNull<u8>> {
        if size > MAX_REQUEST {
            return None;
        }
        self.heap.trim();
        request()
    }

    /// Moves a block to a new block of `new_size` bytes.
    ///
    /// If there is no memory for a new block, the old block stays live and unchanged. If the old
    /// block is a span that shrinks, it already has room for `new_size` bytes, so the function
    /// returns `ptr`. In all other cases, it returns `None`.
    ///
    /// This function is never inlined, so `realloc` needs no stack frame if a block stays in place.
    ///
    /// # Safety
    ///
    /// - `ptr` must be a live block of the heap that has at least `size` bytes.
    /// - If the function returns a new block, the caller must not use the old block again.
    #[inline(never)]
    unsafe fn move_to(
        &self,
        ptr: NonNull<u8>,
        size: usize,
        new_size: usize,
    ) -> Option<NonNull<u8>> {
        self.heap.visit();
        let Some(new) = self.malloc(new_size) else {
            return (new_size <= size && Self::class(size).is_none()).then_some(ptr);
        };
        // SAFETY: both blocks are live, have that many bytes and do not overlap.
        unsafe { new.copy_from_nonoverlapping(ptr, cmp::min(size, new_size)) };
        // SAFETY: `ptr` is a live block of the heap, and is not used again (contract).
        unsafe { self.heap.free(BlockPtr::from_start(ptr)) };
        Some(new)
    }
}

// SAFETY: blocks have their size and alignment and do not overlap (contracts of `Blocks` and
// `MemAlloc`). Each block is freed to the allocator that it came from, because no block of the
// layer below lies in an arena of the heap (invariant of `lower`).
unsafe impl<B: Blocks, A: MemAlloc> MemAlloc for Pymalloc<B, A> {
    #[inline]
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        let Some(class) = Self::class(size) else { return self.malloc_above(size) };
        match self.heap.alloc_listed(class) {
            Some(block) => Some(block.into_start()),
            None => self.alloc_unlisted(class, size),
        }
    }

    #[inline]
    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        let bytes = calloc_size(count, size)?;
        if Self::class(bytes).is_none() {
            return self.calloc_above(count, size);
        }
        let block = self.malloc(bytes)?;
        // SAFETY: the block has at least this many bytes, and nothing else uses it.
        unsafe { block.write_bytes(0, bytes) };
        Some(block)
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        let Some(ptr) = ptr else { return self.malloc(size) };
        // SAFETY: `ptr` is a live block of this allocator (contract of `realloc`).
        match unsafe { self.heap.size_if_ours(ptr) } {
            // SAFETY: the heap did not recognise `ptr`, so the layer below allocated it.
            None => unsafe { self.lower_realloc(ptr, size) },
            Some(_) if size > MAX_REQUEST => None,
            Some(old) if Self::stays(old, size) => Some(ptr),
            // SAFETY: the heap recognised `ptr` as a live block of its own, and returned its size.
            Some(old) => unsafe { self.move_to(ptr, old, size) },
        }
    }

    #[inline]
    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        let Some(ptr) = ptr else { return };
        // SAFETY: `ptr` is a live block (contract). If `ptr` lies in an arena of the heap, the heap
        // allocated the block (invariant of `lower`). The block is then small or a span, because
        // this allocator requests nothing else from the heap.
        if let Some(foreign) = unsafe { self.heap.free_if_ours(ptr) } {
            // SAFETY: the heap did not recognise the block, so the layer below allocated it.
            unsafe { self.lower_free(foreign) };
        }
    }

    unsafe fn usable_size(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: the block is live (contract). If it lies in an arena, the heap allocated it.
        let ours = unsafe { self.heap.size_if_ours(ptr) };
        // SAFETY: the heap did not recognise the block, so the layer below allocated it.
        ours.or_else(|| unsafe { self.lower.usable_size(ptr) })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::cell::Cell;
    use std::vec::Vec;

    use raw_mem::{ArenaSize, ArenaSource, Malloc, MapError, MmapArenas, NoAlloc, RetainingArenas};

    use super::*;
    use crate::{
        entry::{access::GilHeld, claim::KnownArenas},
        geometry::eras::{KeepInClass, Native, Pools16K, ZeroInPools},
        heap::Heap,
    };

    type TestHeap<G> = Heap<KnownArenas<MmapArenas, Malloc, G>, Malloc, G>;

    fn pymalloc<G: Geometry>() -> Pymalloc<GilHeld<TestHeap<G>>, Malloc> {
        let heap =
            Heap::with_geometry(KnownArenas::with_geometry(MmapArenas::new(), Malloc), Malloc);
        // SAFETY: each test uses one thread, and nothing below the heap calls back into it.
        let heap = unsafe { GilHeld::new(heap) };
        // SAFETY: malloc never returns memory that lies in an arena of the heap.
        unsafe { Pymalloc::new(heap, Malloc) }
    }

    fn small<G: Geometry>(pymalloc: &Pymalloc<GilHeld<TestHeap<G>>, Malloc>) -> usize {
        pymalloc.stats().classes().iter().map(|class| class.in_use).sum()
    }

    #[test]
    fn requests_of_zero_bytes_or_above_the_threshold_go_to_the_layer_below() {
        let pymalloc = pymalloc::<Pools16K>();
        let blocks = [0, 513, 1 << 20].map(|size| pymalloc.malloc(size).unwrap());
        assert_eq!(small(&pymalloc), 0);
        assert_eq!(pymalloc.malloc(512).is_some() as usize, small(&pymalloc));
        for block in blocks {
            // SAFETY: the block is live and not used again.
            unsafe { pymalloc.free(Some(block)) };
        }
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn the_usable_size_comes_from_the_layer_that_serves_the_block() {
        let pymalloc = pymalloc::<Pools16K>();
        for size in [1, 100, 512, 513, 1 << 20] {
            let block = pymalloc.malloc(size).unwrap();
            // SAFETY: the block is live and not used again.
            let usable = unsafe { pymalloc.usable_size(block) }.unwrap();
            assert!((size..size + 8192).contains(&usable), "{size}: {usable}");
            assert!(size > 512 || usable == size.next_multiple_of(16), "{size}: {usable}");
            // SAFETY: as above.
            unsafe { pymalloc.free(Some(block)) };
        }
    }

    /// Returns the number of spans in use.
    fn spans(pymalloc: &Pymalloc<GilHeld<TestHeap<Native>>, Malloc>) -> usize {
        small(pymalloc) - pymalloc.stats().classes()[..32].iter().map(|c| c.in_use).sum::<usize>()
    }

    #[test]
    fn our_own_geometry_serves_requests_from_128_to_480_kib_with_spans() {
        let pymalloc = pymalloc::<Native>();
        let served = [(513, 0), ((128 << 10) - 1, 0), (128 << 10, 1), (480 << 10, 1), (500_000, 0)];
        for (size, expected) in served {
            for zeroed in [false, true] {
                let block = if zeroed { pymalloc.calloc(1, size) } else { pymalloc.malloc(size) };
                assert_eq!((spans(&pymalloc), block.is_some()), (expected, true), "{size}");
                // SAFETY: the block is live and not used again.
                unsafe { pymalloc.free(block) };
                assert_eq!(spans(&pymalloc), 0);
            }
        }
    }

    #[test]
    fn a_span_that_is_used_again_is_zeroed_by_calloc() {
        let pymalloc = pymalloc::<Native>();
        let size = 200 << 10;
        let block = pymalloc.malloc(size).unwrap();
        // SAFETY: the block has `size` bytes, is live, and is freed once.
        unsafe {
            block.write_bytes(0xff, size);
            pymalloc.free(Some(block));
        }
        let zeroed = pymalloc.calloc(size, 1).unwrap();
        assert_eq!(zeroed, block);
        // SAFETY: the block is live and has `size` initialised bytes.
        let bytes = unsafe { core::slice::from_raw_parts(zeroed.as_ptr(), size) };
        assert!(bytes.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_span_stays_in_place_or_keeps_its_contents() {
        let pymalloc = pymalloc::<Native>();
        let mut block = pymalloc.malloc(256 << 10).unwrap();
        // SAFETY: the block is live and has at least 256 KiB.
        unsafe { block.write_bytes(7, 256 << 10) };
        let mut kept = 256 << 10;
        for (size, stays) in [
            (200 << 10, true),
            (192 << 10, false),
            (470 << 10, false),
            (2 << 20, false),
            (100 << 10, true),
            (10, true),
        ] {
            // SAFETY: the block is live, and is replaced by the result.
            let new = unsafe { pymalloc.realloc(Some(block), size) }.unwrap();
            // While the block is a span of the heap, it must keep its address if and only if
            // `stays` is true. The request for 2 MiB moves the contents to a block of the C
            // library. From then on, we do not check the address, because the C library may move
            // the block whenever it resizes it.
            assert!(spans(&pymalloc) == 0 || (new == block) == stays, "{size}");
            block = new;
            kept = kept.min(size);
            // SAFETY: the block is live, and its first `kept` bytes are initialised.
            let bytes = unsafe { core::slice::from_raw_parts(block.as_ptr(), kept) };
            assert!(bytes.iter().all(|byte| *byte == 7), "{size}");
        }
        assert_eq!(spans(&pymalloc), 0);
        // SAFETY: the block is live and not used again.
        unsafe { pymalloc.free(Some(block)) };
    }

    #[test]
    fn a_span_stays_in_place_if_there_is_no_memory_for_a_smaller_block() {
        let heap: TestHeap<Native> =
            Heap::with_geometry(KnownArenas::with_geometry(MmapArenas::new(), Malloc), Malloc);
        // SAFETY: the test uses one thread, and nothing below the heap calls back into it.
        let heap = unsafe { GilHeld::new(heap) };
        // SAFETY: `NoAlloc` never returns a block, so no block of it lies in an arena of the heap.
        let pymalloc = unsafe { Pymalloc::new(heap, NoAlloc) };
        let span = pymalloc.malloc(200 << 10);
        // SAFETY: the span is live, and is freed once.
        unsafe {
            assert_eq!(pymalloc.realloc(span, 1 << 20), None);
            assert_eq!(pymalloc.realloc(span, 1000), span);
            pymalloc.free(span);
        }
    }

    /// An arena source that never has memory.
    struct Exhausted;

    // SAFETY: the source never returns an arena.
    unsafe impl ArenaSource for Exhausted {
        fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
            Err(MapError::Exhausted { size })
        }

        unsafe fn unmap(&mut self, _arena: NonNull<u8>, _size: ArenaSize) {}
    }

    #[test]
    fn the_layer_below_serves_spans_for_which_no_arena_can_be_mapped() {
        let known = KnownArenas::<_, _, Native>::with_geometry(Exhausted, Malloc);
        // SAFETY: the test uses one thread, and nothing below the heap calls back into it.
        let heap = unsafe { GilHeld::new(Heap::with_geometry(known, Malloc)) };
        // SAFETY: malloc never returns memory that lies in an arena of the heap.
        let pymalloc = unsafe { Pymalloc::new(heap, Malloc) };
        let mut block = pymalloc.malloc(200 << 10);
        for size in [300 << 10, 100, 400 << 10] {
            // SAFETY: the block is live, and is replaced by the result.
            block = unsafe { pymalloc.realloc(block, size) };
            assert!(block.is_some());
        }
        // SAFETY: the block is live, and is freed once.
        unsafe { pymalloc.free(block) };
    }

    #[test]
    fn a_geometry_may_serve_zero_bytes_from_pools() {
        let pymalloc = pymalloc::<ZeroInPools<Pools16K>>();
        assert!(pymalloc.malloc(0).is_some() && pymalloc.calloc(0, 7).is_some());
        assert_eq!(small(&pymalloc), 2);
    }

    #[test]
    fn a_reused_block_is_zeroed_by_calloc() {
        let pymalloc = pymalloc::<Pools16K>();
        let block = pymalloc.malloc(100).unwrap();
        // SAFETY: the block has 100 bytes, is live, and is freed once.
        unsafe {
            block.write_bytes(0xff, 100);
            pymalloc.free(Some(block));
        }
        let zeroed = pymalloc.calloc(10, 10).unwrap();
        assert_eq!(zeroed, block);
        // SAFETY: the block is live and has 100 initialised bytes.
        let bytes = unsafe { core::slice::from_raw_parts(zeroed.as_ptr(), 100) };
        assert!(bytes.iter().all(|byte| *byte == 0));
    }

    /// Returns true if a block of `old` bytes moves when it is reallocated to `new` bytes.
    fn moves<G: Geometry>(old: usize, new: usize) -> bool {
        let pymalloc = pymalloc::<G>();
        let before = pymalloc.malloc(old).unwrap();
        // SAFETY: the block is live, and is replaced by the result.
        let after = unsafe { pymalloc.realloc(Some(before), new) }.unwrap();
        // SAFETY: the block is live and not used again.
        unsafe { pymalloc.free(Some(after)) };
        before != after
    }

    #[test]
    fn a_block_stays_in_place_if_more_than_three_quarters_are_needed() {
        assert!(!moves::<Pools16K>(512, 385) && moves::<Pools16K>(512, 384));
        assert!(moves::<Pools16K>(5, 10) && !moves::<Pools16K>(5, 13));
        assert!(moves::<Pools16K>(36, 36) && !moves::<Pools16K>(37, 37));
        assert!(moves::<Pools16K>(100, 513));
    }

    #[test]
    fn a_geometry_may_leave_every_block_in_place_within_its_class() {
        for size in 1..=512 {
            assert!(!moves::<KeepInClass<Pools16K>>(size, size));
        }
        assert!(moves::<KeepInClass<Pools16K>>(512, 384));
    }

    #[test]
    fn a_moved_block_keeps_its_contents() {
        let pymalloc = pymalloc::<Pools16K>();
        let mut block = pymalloc.malloc(16).unwrap();
        // SAFETY: the block has 16 bytes.
        unsafe { block.write_bytes(7, 16) };
        for size in [100, 600, 10_000, 17] {
            // SAFETY: the block is live, and is replaced by the result.
            block = unsafe { pymalloc.realloc(Some(block), size) }.unwrap();
            // SAFETY: the block is live, and 16 bytes of it are initialised.
            assert_eq!(unsafe { block.cast::<[u8; 16]>().read() }, [7; 16]);
        }
        // SAFETY: the block is live and not used again.
        unsafe { pymalloc.free(Some(block)) };
    }

    #[test]
    fn a_block_of_the_layer_below_stays_in_that_layer() {
        let pymalloc = pymalloc::<Pools16K>();
        let large = pymalloc.malloc(10_000);
        // SAFETY: the block is live, and is replaced by the result.
        let shrunk = unsafe { pymalloc.realloc(large, 20) };
        assert_eq!(small(&pymalloc), 0);
        // SAFETY: the block is live and not used again.
        unsafe { pymalloc.free(shrunk) };
    }

    #[test]
    fn a_request_above_the_limit_is_refused_and_leaves_the_block() {
        let pymalloc = pymalloc::<Pools16K>();
        let block = pymalloc.malloc(16);
        assert_eq!(pymalloc.malloc(MAX_REQUEST + 1), None);
        assert_eq!(pymalloc.calloc(MAX_REQUEST, 3), None);
        // SAFETY: the block is live, and stays live because the request fails.
        assert_eq!(unsafe { pymalloc.realloc(block, MAX_REQUEST + 1) }, None);
        assert_eq!(small(&pymalloc), 1);
    }

    /// The product `4 * new_size` must not overflow for sizes up to `MAX_REQUEST`.
    ///
    /// Regression test (defect D7).
    #[test]
    fn a_reallocation_to_an_unservable_size_is_refused_and_leaves_the_block() {
        let pymalloc = pymalloc::<Pools16K>();
        let block = pymalloc.malloc(40);
        for size in [1 << 62, (1 << 62) + 1, MAX_REQUEST - 1, MAX_REQUEST] {
            // SAFETY: the block is live, and stays live because the request fails.
            assert_eq!(unsafe { pymalloc.realloc(block, size) }, None);
        }
        assert_eq!(small(&pymalloc), 1);
        // SAFETY: the block is live and not used again.
        unsafe { pymalloc.free(block) };
    }

    /// A layer below that refuses every request while an arena is mapped.
    struct Short<'a>(&'a Cell<usize>);

    // SAFETY: every block comes from malloc.
    unsafe impl MemAlloc for Short<'_> {
        fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
            if self.0.get() > 0 { None } else { Malloc.malloc(size) }
        }

        fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
            if self.0.get() > 0 { None } else { Malloc.calloc(count, size) }
        }

        unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
            // SAFETY: `ptr` is null or a live block of malloc (contract of `realloc`).
            if self.0.get() > 0 { None } else { unsafe { Malloc.realloc(ptr, size) } }
        }

        unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
            // SAFETY: `ptr` is null or a live block of malloc (contract of `free`).
            unsafe { Malloc.free(ptr) }
        }
    }

    /// A source that counts the arenas that are mapped now.
    struct Counted<'a>(MmapArenas, &'a Cell<usize>);

    // SAFETY: the source below maps and unmaps every arena.
    unsafe impl ArenaSource for Counted<'_> {
        fn map(&mut self, size: raw_mem::ArenaSize) -> Result<NonNull<u8>, raw_mem::MapError> {
            self.1.set(self.1.get() + 1);
            self.0.map(size)
        }

        unsafe fn unmap(&mut self, arena: NonNull<u8>, size: raw_mem::ArenaSize) {
            self.1.set(self.1.get() - 1);
            // SAFETY: the arena came from the source below (contract of `unmap`).
            unsafe { self.0.unmap(arena, size) }
        }
    }

    /// Regression test (field report F5).
    #[test]
    fn a_request_that_the_layer_below_refuses_is_repeated_after_a_trim() {
        let mapped = Cell::new(0);
        let arenas = RetainingArenas::new(Counted(MmapArenas::new(), &mapped));
        let heap = Heap::new(KnownArenas::new(arenas, Malloc), Malloc);
        // SAFETY: one thread, nothing calls back, and malloc uses no memory of the arenas.
        let pymalloc = unsafe { Pymalloc::new(GilHeld::new(heap), Short(&mapped)) };
        // The source retains arenas only after arenas have been unmapped and requested again.
        let retain = || {
            for _ in 0..2 {
                let blocks: Vec<_> = (0..10_000).map(|_| pymalloc.malloc(512).unwrap()).collect();
                for block in blocks {
                    // SAFETY: the block is live and not used again.
                    unsafe { pymalloc.free(Some(block)) };
                }
            }
            assert!(mapped.get() > 1);
        };
        retain();
        let large = pymalloc.malloc(10_000);
        assert!(large.is_some());
        retain();
        let zeroed = pymalloc.calloc(10_000, 1);
        assert!(zeroed.is_some());
        retain();
        // SAFETY: the block is live, and is replaced by the result.
        let large = unsafe { pymalloc.realloc(large, 20_000) };
        assert!(large.is_some());
        for block in [large, zeroed] {
            // SAFETY: the block is live and not used again.
            unsafe { pymalloc.free(block) };
        }
    }

    #[test]
    fn only_a_request_that_can_succeed_makes_the_heap_trim() {
        let pymalloc = pymalloc::<Pools16K>();
        let block = pymalloc.malloc(16);
        // SAFETY: the block is live and not used again.
        unsafe { pymalloc.free(block) };
        let arenas = || pymalloc.stats().arenas.current;
        assert_eq!(pymalloc.malloc(MAX_REQUEST + 1), None);
        assert_eq!(arenas(), 1);
        assert_eq!(pymalloc.malloc(MAX_REQUEST), None);
        assert_eq!(arenas(), 0);
    }

    #[test]
    fn the_heap_and_the_layer_below_are_accessible() {
        let pymalloc = pymalloc::<Pools16K>();
        let large = pymalloc.lower().malloc(1000);
        assert_eq!(pymalloc.access().stats(), pymalloc.stats());
        // SAFETY: the block came from the layer below, so the allocator frees it there.
        unsafe { pymalloc.free(large) };
    }

    #[test]
    fn a_locked_heap_serves_many_threads() {
        let heap: TestHeap<Pools16K> =
            Heap::new(KnownArenas::new(MmapArenas::new(), Malloc), Malloc);
        // SAFETY: malloc never returns memory that lies in an arena of the heap.
        let pymalloc = unsafe { Pymalloc::new(crate::entry::access::Locked::new(heap), Malloc) };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for size in (1..=600).cycle().take(10_000) {
                        let block = pymalloc.malloc(size);
                        // SAFETY: the block is live and not used again.
                        unsafe { pymalloc.free(block) };
                    }
                });
            }
        });
        assert_eq!(pymalloc.stats().bytes.in_use, 0);
    }
}
