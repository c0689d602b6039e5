//! Blocks that are too large for an arena. They belong to the shared source, not to a heap.
//!
//! A block that fits into an arena belongs to the heap of one thread. If another thread frees such
//! a block, the block waits until the owner of that heap reclaims it. A large block belongs to no
//! heap, so any thread can free it directly, and it never waits. The heap of the freeing thread may
//! retain the large block for its own next request.

use std::ptr::NonNull;

use obmalloc::{LargeBlock, NewLarge};
use raw_mem::ArenaSource;
use sync::atomic::Ordering::Relaxed;

use super::{Heaps, owner::Owner};
use crate::{parts::Parts, shared_arenas::SharedArenas, shared_source::SharedSource};

impl<P: Parts> Heaps<P> {
    /// Maps a block of `size` bytes at a multiple of `align` bytes, which must be a power of two.
    ///
    /// Returns `None` if the source has no memory.
    pub fn alloc_large(&'static self, size: usize, align: usize) -> Option<NewLarge> {
        let mut arenas = SharedArenas::of(&self.shared);
        let new = LargeBlock::map::<P::Geometry>(&mut arenas, size, align)?;
        // SAFETY: the block was allocated just now with this geometry, so it is in use.
        if !unsafe { self.shared.add_alignment(new.block) } {
            // SAFETY: the block came from the shared source, and nothing else refers to it.
            unsafe { new.block.unmap::<P::Geometry>(&mut arenas) };
            return None;
        }
        Some(new)
    }

    /// Returns the number of all large blocks in use, and the size of their mappings in bytes.
    /// O(heaps).
    ///
    /// Each of the two numbers is exact if no other thread allocates or frees a large block during
    /// the call.
    pub fn large_blocks(&self) -> (usize, usize) {
        let (blocks, bytes) = self.shared.large.get();
        let retained = self.retained_large();
        (blocks.saturating_sub(retained.0), bytes.saturating_sub(retained.1))
    }

    /// Returns the number and the size of the large mappings that heaps retain.
    pub(super) fn retained_large(&self) -> (usize, usize) {
        let counts = self.list.iter().map(|heap| heap.retained_large.get());
        counts.fold((0, 0), |sum, of_heap| (sum.0 + of_heap.0, sum.1 + of_heap.1))
    }

    /// Frees a large block. `errno` is unchanged, because the source restores it.
    ///
    /// # Safety
    ///
    /// - `block` must have come from [`alloc_large`](Self::alloc_large) of this family.
    /// - `block` must not be used afterwards.
    pub unsafe fn free_large(&'static self, block: LargeBlock) {
        // SAFETY: the block is in use (contract).
        unsafe { self.shared.remove_alignment(block) };
        let mut arenas = SharedArenas::of(&self.shared);
        // SAFETY: the block came from the shared source, and is not used afterwards (contract).
        unsafe { block.unmap::<P::Geometry>(&mut arenas) };
    }

    /// Zeroes whole pages of a large block by returning their memory to the system.
    ///
    /// Returns false if the system refuses. The contents of the pages are then unspecified.
    ///
    /// # Safety
    ///
    /// - The `len` bytes at `start` must be whole pages of one large block of this family of heaps.
    /// - The caller must own the block, and must no longer need the contents of these pages.
    pub(crate) unsafe fn purge_large(&'static self, start: NonNull<u8>, len: usize) -> bool {
        let mut arenas = SharedArenas::of(&self.shared);
        // SAFETY: the pages lie in a mapping of the shared source, and are no longer needed
        // (contract).
        unsafe { arenas.purge(start, len) }.is_ok()
    }

    /// Grows or shrinks a large block, which may move. If this returns `None`, the block is
    /// unchanged.
    ///
    /// See [`LargeBlock::resize`].
    ///
    /// # Safety
    ///
    /// - `block` must have come from [`alloc_large`](Self::alloc_large) of this family.
    /// - Only the returned block may be used afterwards.
    pub unsafe fn resize_large(
        &'static self,
        block: LargeBlock,
        size: usize,
    ) -> Option<LargeBlock> {
        let mut arenas = SharedArenas::of(&self.shared);
        // SAFETY: the block came from the shared source. Only the result is used (contract).
        unsafe { block.resize::<P::Geometry>(&mut arenas, size) }
    }
}

impl<P: Parts> SharedSource<P> {
    /// Counts the alignment of a new block, and enters the block into the arena map.
    ///
    /// The function adds the result of [`alignment_of`](Self::alignment_of) to the total in
    /// `large_alignment`. It does nothing if this result is 0.
    ///
    /// To find a block, the arena map needs an entry for the address of the block's header. For a
    /// mapping outside of the reserved range, the map has an entry only for the start of the
    /// mapping. If the block has a large alignment, its header can lie far from this start, so the
    /// function adds an entry for the header.
    ///
    /// Returns false and changes nothing if there is no memory for this entry.
    ///
    /// # Safety
    ///
    /// - `block` must be a live block of this source.
    unsafe fn add_alignment(&self, block: LargeBlock) -> bool {
        // SAFETY: the contract is the same.
        let bytes = unsafe { Self::alignment_of(block) };
        if bytes == 0 {
            return true;
        }
        let header = block.header_address::<P::Geometry>();
        // SAFETY: the header begins at a multiple of the arena size. It is the start of the mapping,
        // or lies an arena's size before the block in the mapping, which belongs to this source. The
        // map's nodes come from `lower`. `remove_alignment` retracts the address before the
        // unmapping.
        if !unsafe { self.map().publish(header, self.lower()) } {
            return false;
        }
        self.large_alignment.fetch_add(bytes, Relaxed);
        true
    }

    /// Undoes what [`add_alignment`](Self::add_alignment) has done for `block`, which is about to be
    /// freed.
    ///
    /// # Safety
    ///
    /// - `block` must be a live block of this source.
    unsafe fn remove_alignment(&self, block: LargeBlock) {
        // SAFETY: the contract is the same.
        let bytes = unsafe { Self::alignment_of(block) };
        if bytes > 0 {
            // SAFETY: the block is about to be freed (contract), and its mapping contains no other.
            unsafe { self.map().retract(block.header_address::<P::Geometry>()) };
            self.large_alignment.fetch_sub(bytes, Relaxed);
        }
    }

    /// Returns the number of bytes that precede the block in its mapping, minus the
    /// usual [`OVERHEAD`](LargeBlock::OVERHEAD).
    ///
    /// The result is 0 unless the block has a special alignment.
    ///
    /// # Safety
    ///
    /// - `block` must be a live block of this source.
    unsafe fn alignment_of(block: LargeBlock) -> usize {
        // SAFETY: the block is a live block of this source (contract), so it has this geometry.
        unsafe { block.offset::<P::Geometry>() - LargeBlock::OVERHEAD }
    }
}

impl<P: Parts> Owner<P> {
    /// Allocates one of the large blocks that this heap retains. Its contents are unspecified.
    /// O(1).
    #[inline]
    pub fn reuse_large(&mut self, size: usize, align: usize) -> Option<LargeBlock> {
        self.enter_slowly(|own| own.reuse_large(size, align))
    }

    /// Allocates a large block. See [`Heaps::alloc_large`].
    ///
    /// Needs no lock if this heap retains a block of about the same size.
    pub fn alloc_large(&mut self, size: usize, align: usize) -> Option<NewLarge> {
        let new = self.enter_slowly(|own| own.map_large(size, align))?;
        // SAFETY: the block was allocated just now with this geometry, so it is in use.
        if !unsafe { self.heap().heaps.shared.add_alignment(new.block) } {
            // SAFETY: the block came from the shared source, and nothing else refers to it.
            self.enter_slowly(|own| unsafe { own.unmap_large(new.block) });
            return None;
        }
        Some(new)
    }

    /// Frees a large block, which this heap may retain.
    ///
    /// # Safety
    ///
    /// - `block` must be a live large block from this heap's arena source.
    /// - The caller must not use the memory of `block` after this call.
    pub unsafe fn free_large(&mut self, block: LargeBlock) {
        // SAFETY: the block is in use (contract).
        unsafe { self.heap().heaps.shared.remove_alignment(block) };
        // SAFETY: the block came from the shared source, and is not used afterwards (contract).
        self.enter_slowly(|own| unsafe { own.unmap_large(block) });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use raw_mem::{Malloc, MmapArenas};

    use super::*;
    use crate::ThreadGeometry;

    static HEAPS: Heaps<(MmapArenas, Malloc, ThreadGeometry)> =
        Heaps::new(MmapArenas::new(), Malloc);

    /// Regression test: the arena map did not find blocks with a large alignment. The map had an
    /// entry only for the start of each mapping, and such a block can lie far from the start of its
    /// mapping.
    #[test]
    fn a_block_of_any_alignment_is_known_until_it_is_freed() {
        for align in (4..=24).map(|bits| 1 << bits) {
            let mut owner = HEAPS.open().expect("there is memory");
            for size in [1, 3 << 20] {
                let alloc = [
                    HEAPS.alloc_large(size, align).expect("there is memory").block,
                    owner.alloc_large(size, align).expect("there is memory").block,
                ];
                let is_known = |block: &LargeBlock| HEAPS.holds(block.start().addr().get() - 1);
                assert!(alloc.iter().all(is_known), "{size} bytes at a multiple of {align}");
                for block in alloc {
                    // SAFETY: the block came from these heaps, and is not used again.
                    unsafe { HEAPS.free_large(block) };
                }
                assert!(!alloc.iter().any(is_known), "{size} bytes at a multiple of {align}");
            }
        }
    }
}
