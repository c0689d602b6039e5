//! What [`Pymalloc`](crate::Pymalloc) needs from a heap.

use core::ptr::NonNull;

use raw_mem::{ArenaSource, MemAlloc};

use crate::{
    entry::{
        access::Enter,
        claim::{Claim, KnownArenas},
    },
    geometry::{Geometry, size_class::SizeClass},
    heap::Heap,
    pool::block::BlockPtr,
};

/// A heap of blocks that controls who enters it, such as [`GilHeld`](crate::GilHeld),
/// [`Locked`](crate::Locked), or the heaps of many threads taken together.
///
/// # Safety
///
/// - A block must have at least the size of its class and be aligned to the geometry's alignment.
/// - A block must overlap neither another block in use nor a block of the layer below.
/// - The caller must own a block until it is freed or the implementer is dropped. Moving the
///   implementer must not affect blocks.
/// - A pointer must be recognised exactly if it lies in one of the implementer's arenas.
pub unsafe trait Blocks {
    /// The geometry of the heap.
    type Geometry: Geometry;

    /// Allocates a block of `class` if one is on the free list of the pool that serves the class.
    /// `None` says nothing about memory.
    fn alloc_listed(&self, class: SizeClass<Self::Geometry>) -> Option<BlockPtr>;

    /// Allocates a block of `class`. Returns `None` if no arena can be mapped.
    fn alloc(&self, class: SizeClass<Self::Geometry>) -> Option<BlockPtr>;

    /// Unmaps the arenas that have no block in use, and what the source of arenas retains.
    fn trim(&self);

    /// Frees `block`.
    ///
    /// # Safety
    ///
    /// `block` must have come from these heaps.
    unsafe fn free(&self, block: BlockPtr);

    /// Frees the block at `ptr` if it came from these heaps. Otherwise returns `ptr`.
    ///
    /// # Safety
    ///
    /// If `ptr` lies in an arena of these heaps, it must be the start of a block in use, and the
    /// caller must own it.
    unsafe fn free_if_ours(&self, ptr: NonNull<u8>) -> Option<NonNull<u8>>;

    /// Returns the size of the block at `ptr` in bytes, or `None` if it did not come from these heaps.
    ///
    /// # Safety
    ///
    /// If `ptr` lies in an arena of these heaps, it must be the start of a block in use.
    unsafe fn size_if_ours(&self, ptr: NonNull<u8>) -> Option<usize>;
}

// SAFETY: the guarded heap fulfils the contract and stays the same heap (contract of `Enter`). Its
// arena map recognises its pointers, and only the heap's source can change that map.
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

    fn trim(&self) {
        self.enter(Heap::trim);
    }

    #[inline]
    unsafe fn free(&self, block: BlockPtr) {
        // SAFETY: the block came from this heap (contract of `free`).
        self.enter(|heap| unsafe { heap.free(block) });
    }

    #[inline]
    unsafe fn free_if_ours(&self, ptr: NonNull<u8>) -> Option<NonNull<u8>> {
        self.enter(|heap| {
            // SAFETY: in an arena of this heap, `ptr` is a block that the caller owns (contract of
            // `free_if_ours`).
            match unsafe { heap.claim(ptr) } {
                Claim::Ours(block) => {
                    // SAFETY: the heap has claimed the block.
                    unsafe { heap.free(block) };
                    None
                }
                Claim::Foreign(ptr) => Some(ptr),
            }
        })
    }

    #[inline]
    unsafe fn size_if_ours(&self, ptr: NonNull<u8>) -> Option<usize> {
        self.enter(|heap| {
            // SAFETY: in an arena of this heap, `ptr` is a block in use (contract of `size_if_ours`).
            match unsafe { heap.claim(ptr) } {
                // SAFETY: the heap has claimed the block.
                Claim::Ours(block) => Some(unsafe { heap.block_size(&block) }),
                Claim::Foreign(_) => None,
            }
        })
    }
}
