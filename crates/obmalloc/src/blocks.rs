//! What an allocator of any size needs of a heap, whoever may enter it.

use core::ptr::NonNull;

use raw_mem::{ArenaSource, MemAlloc};

use crate::{
    access::Enter,
    block::BlockPtr,
    claim::{Claim, KnownArenas},
    geometry::Geometry,
    heap::Heap,
    size_class::SizeClass,
};

/// A heap of blocks that controls who enters it.
///
/// [`GilHeld`](crate::GilHeld) and [`Locked`](crate::Locked) are such heaps. The heaps of many
/// threads together are one as well.
///
/// # Safety
///
/// An implementer promises that
///
/// - a block has at least the size of its class and is aligned to the geometry's alignment;
/// - a block overlaps no other block in use, and no block of the layer below;
/// - a block belongs to the caller until it is freed, or until the implementer is dropped, and
///   moving the implementer does not affect it;
/// - a pointer is recognised as its own exactly if it lies in one of its arenas.
pub unsafe trait Blocks {
    /// The sizes of its blocks.
    type Geometry: Geometry;

    /// Takes a block of `class` if one is at hand. `None` tells nothing about memory.
    fn alloc_listed(&self, class: SizeClass<Self::Geometry>) -> Option<BlockPtr>;

    /// Takes a block of `class` by any means; `None` when no arena can be had.
    fn alloc(&self, class: SizeClass<Self::Geometry>) -> Option<BlockPtr>;

    /// Gives back all memory that no block in use needs: what is retained for later requests, here
    /// and in the source of arenas.
    fn trim(&self);

    /// Takes `block` back.
    ///
    /// # Safety
    ///
    /// The block came from here.
    unsafe fn free(&self, block: BlockPtr);

    /// Takes the block at `ptr` back if it came from here; otherwise returns `ptr`.
    ///
    /// # Safety
    ///
    /// If `ptr` lies in an arena of these heaps, it is the start of a block in use that the
    /// caller gives up.
    unsafe fn free_if_ours(&self, ptr: NonNull<u8>) -> Option<NonNull<u8>>;

    /// The bytes of the block at `ptr`; `None` if it did not come from here.
    ///
    /// # Safety
    ///
    /// If `ptr` lies in an arena of these heaps, it is the start of a block in use.
    unsafe fn size_if_ours(&self, ptr: NonNull<u8>) -> Option<usize>;
}

// SAFETY: the guarded heap keeps the promises and stays the same heap (contract of `Enter`). Its
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
        // SAFETY: the caller's promise.
        self.enter(|heap| unsafe { heap.free(block) });
    }

    #[inline]
    unsafe fn free_if_ours(&self, ptr: NonNull<u8>) -> Option<NonNull<u8>> {
        self.enter(|heap| {
            // SAFETY: the caller's promise.
            match unsafe { heap.claim(ptr) } {
                Claim::Ours(block) => {
                    // SAFETY: it was claimed just now.
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
            // SAFETY: the caller's promise.
            match unsafe { heap.claim(ptr) } {
                // SAFETY: it was claimed just now.
                Claim::Ours(block) => Some(unsafe { heap.block_size(&block) }),
                Claim::Foreign(_) => None,
            }
        })
    }
}
