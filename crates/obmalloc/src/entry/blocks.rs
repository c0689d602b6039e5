//! The operations that [`Pymalloc`](crate::Pymalloc) needs from its heap or heaps.

use core::ptr::NonNull;

use raw_mem::{ArenaSource, MemAlloc};

use crate::{
    entry::{
        access::Enter,
        claim::{Claim, KnownArenas},
    },
    geometry::{Geometry, shape::Shape, size_class::SizeClass},
    heap::Heap,
    pool::block::BlockPtr,
};

/// One or more heaps that [`Pymalloc`](crate::Pymalloc) allocates from.
///
/// Both [`GilHeld`](crate::GilHeld) and [`Locked`](crate::Locked) implement the trait for one heap.
///
/// # Safety
///
/// - Each block must have at least the size of its class, and the alignment of the geometry.
/// - A block must overlap neither another block in use nor a block of the layer below.
/// - A block must belong to the caller until the block is freed or the implementer is dropped.
/// - Moving the implementer must not invalidate its blocks.
/// - [`free_if_ours`](Self::free_if_ours) and [`size_if_ours`](Self::size_if_ours) must recognise
///   exactly the pointers into arenas of these heaps.
pub unsafe trait Blocks {
    /// The geometry of these heaps.
    type Geometry: Geometry;

    /// Allocates a block of `class` from the free list of the class's first pool.
    ///
    /// If the free list is empty, returns `None`. [`alloc`](Self::alloc) may still find a block in
    /// that case.
    fn alloc_listed(&self, class: SizeClass<Self::Geometry>) -> Option<BlockPtr>;

    /// Allocates a block of `class`, or returns `None` if no arena can be mapped.
    fn alloc(&self, class: SizeClass<Self::Geometry>) -> Option<BlockPtr>;

    /// Allocates a block of `class` whose first `bytes` bytes are zero, or returns `None` if no
    /// arena can be mapped.
    ///
    /// `bytes` must not exceed the block size.
    fn alloc_zeroed(&self, class: SizeClass<Self::Geometry>, bytes: usize) -> Option<BlockPtr>;

    /// Returns to the system the unused memory that the calling thread can reach.
    ///
    /// The result is the number of bytes returned to the system.
    fn trim(&self) -> usize;

    /// Lets the calling thread's heap return memory that has been free for a long time.
    ///
    /// A heap checks the time only on its slow paths. If a program rarely takes these paths, its
    /// heap could retain free memory for too long. Therefore, [`Pymalloc`](crate::Pymalloc) also
    /// calls this function in three cases: when it moves a block, when it resizes a block of the
    /// allocator below, and when it serves a request that is not small.
    #[inline]
    fn visit(&self) {}

    /// Frees `block` to the heap that allocated it.
    ///
    /// # Safety
    ///
    /// `block` must have been allocated by one of this implementer's heaps.
    unsafe fn free(&self, block: BlockPtr);

    /// Frees the block at `ptr` if one of these heaps allocated it. Otherwise returns `ptr`.
    ///
    /// # Safety
    ///
    /// If `ptr` lies in an arena of these heaps, the following conditions must hold:
    ///
    /// - `ptr` must point to the start of a live block that the caller owns.
    /// - The block must be [linked](SizeClass::is_linked) or a [span](SizeClass::is_span).
    unsafe fn free_if_ours(&self, ptr: NonNull<u8>) -> Option<NonNull<u8>>;

    /// Returns the size of the block at `ptr` in bytes, or `None` if another allocator provided it.
    ///
    /// # Safety
    ///
    /// If `ptr` lies in an arena of these heaps, it must be the start of a block in use.
    unsafe fn size_if_ours(&self, ptr: NonNull<u8>) -> Option<usize>;
}

// SAFETY: the guarded heap fulfils the contract, and each call enters the same heap (contract of
// `Enter`). The heap recognises pointers by an arena map that only its source changes.
unsafe impl<X, S, M, L, G> Blocks for X
where
    X: Enter<Heap = Heap<KnownArenas<S, M, G>, L, G>>,
    S: ArenaSource,
    M: MemAlloc,
    L: MemAlloc,
    G: Geometry,
{
    type Geometry = G;

    #[inline]
    fn alloc_listed(&self, class: SizeClass<G>) -> Option<BlockPtr> {
        self.enter(|heap| heap.alloc_listed(class))
    }

    #[inline]
    fn alloc(&self, class: SizeClass<G>) -> Option<BlockPtr> {
        self.enter(|heap| heap.alloc(class))
    }

    fn alloc_zeroed(&self, class: SizeClass<G>, bytes: usize) -> Option<BlockPtr> {
        self.enter(|heap| heap.alloc_zeroed(class, bytes))
    }

    fn trim(&self) -> usize {
        self.enter(Heap::trim)
    }

    #[inline]
    fn visit(&self) {
        if Shape::<G>::PURGES {
            self.enter(Heap::visit);
        }
    }

    #[inline]
    unsafe fn free(&self, block: BlockPtr) {
        // SAFETY: the block came from this heap (contract of `free`).
        self.enter(|heap| unsafe { heap.free(block) });
    }

    #[inline]
    unsafe fn free_if_ours(&self, ptr: NonNull<u8>) -> Option<NonNull<u8>> {
        self.enter(|heap| {
            // SAFETY: a pointer into an arena of this heap is a block of the caller (contract).
            match unsafe { heap.claim(ptr) } {
                Claim::Ours(block) => {
                    // SAFETY: the block came from this heap, and is linked or a span (contract).
                    unsafe { heap.free_linked_or_span(block) };
                    None
                }
                Claim::Foreign(ptr) => Some(ptr),
            }
        })
    }

    #[inline]
    unsafe fn size_if_ours(&self, ptr: NonNull<u8>) -> Option<usize> {
        self.enter(|heap| {
            // SAFETY: a pointer into an arena of this heap is the start of a block in use
            // (contract), and the `BlockPtr` only serves to read the size.
            match unsafe { heap.claim(ptr) } {
                // SAFETY: the heap has recognised the block as its own.
                Claim::Ours(block) => Some(unsafe { heap.block_size(&block) }),
                Claim::Foreign(_) => None,
            }
        })
    }
}
