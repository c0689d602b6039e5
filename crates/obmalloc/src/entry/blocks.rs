//! The operations that [`Pymalloc`](crate::Pymalloc) needs from the heap or the heaps from which it
//! allocates small blocks.

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

/// One or more heaps that allocate blocks of size classes. The implementer also controls which
/// thread may enter which heap. [`GilHeld`](crate::GilHeld) and [`Locked`](crate::Locked) implement
/// the trait for one heap. Another implementer can combine the heaps of many threads.
///
/// # Safety
///
/// - Each block must have at least the size of its class, and must be aligned to the geometry's
///   alignment.
/// - A block must overlap neither another block in use nor a block of the layer below.
/// - A block must belong to the caller until the caller frees the block or the implementer is
///   dropped. Moving the implementer in memory must not affect its blocks.
/// - [`free_if_ours`](Self::free_if_ours) and [`size_if_ours`](Self::size_if_ours) must treat a
///   pointer as a block of these heaps if and only if the pointer lies in an arena of these heaps.
pub unsafe trait Blocks {
    /// The geometry of these heaps.
    type Geometry: Geometry;

    /// Allocates a block of `class` if the free list of the first pool of this class contains a
    /// block. If the free list is empty, returns `None`, even if a block can be had in another way.
    /// The caller should then call [`alloc`](Self::alloc).
    fn alloc_listed(&self, class: SizeClass<Self::Geometry>) -> Option<BlockPtr>;

    /// Allocates a block of `class`, and maps an arena for it if necessary. Returns `None` if the
    /// block needs a new arena and no arena can be mapped.
    fn alloc(&self, class: SizeClass<Self::Geometry>) -> Option<BlockPtr>;

    /// Unmaps all arenas of these heaps that have no block in use, as far as the calling thread may
    /// enter the heaps, and then all arenas that their arena source has retained.
    fn trim(&self);

    /// Frees `block` to the heap that it came from.
    ///
    /// # Safety
    ///
    /// `block` must have come from this implementer's heaps.
    unsafe fn free(&self, block: BlockPtr);

    /// Frees the block at `ptr` if it came from this implementer's heaps. Otherwise returns `ptr`.
    ///
    /// # Safety
    ///
    /// If `ptr` lies in an arena of these heaps, it must be the start of a block in use that the
    /// caller owns.
    unsafe fn free_if_ours(&self, ptr: NonNull<u8>) -> Option<NonNull<u8>>;

    /// Returns the size of the block at `ptr` in bytes, or `None` if the block did not come from
    /// this implementer's heaps.
    ///
    /// # Safety
    ///
    /// If `ptr` lies in an arena of these heaps, it must be the start of a block in use.
    unsafe fn size_if_ours(&self, ptr: NonNull<u8>) -> Option<usize>;
}

// SAFETY: the guarded heap fulfils the contract, and each call enters the same heap (contract of
// `Enter`). The heap looks up pointers in the arena map of its source, and only the source can
// change this map.
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
            // SAFETY: if `ptr` lies in an arena of this heap, it is a block that the caller owns
            // (contract of `free_if_ours`).
            match unsafe { heap.claim(ptr) } {
                Claim::Ours(block) => {
                    // SAFETY: the heap has recognised the block as its own.
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
            // SAFETY: if `ptr` lies in an arena of this heap, it is the start of a block in use
            // (contract of `size_if_ours`). The `BlockPtr` is only used to read the size.
            match unsafe { heap.claim(ptr) } {
                // SAFETY: the heap has recognised the block as its own.
                Claim::Ours(block) => Some(unsafe { heap.block_size(&block) }),
                Claim::Foreign(_) => None,
            }
        })
    }
}
