//! Blocks that are too large for an arena. They belong to the shared source and not to a heap.
//!
//! Any thread frees such a block directly, so that no memory waits for an idle owner.

use obmalloc::{LargeBlock, NewLarge};
use sync::atomic::Ordering::Relaxed;

use super::Heaps;
use crate::{parts::Parts, shared_arenas::SharedArenas};

impl<P: Parts> Heaps<P> {
    /// Maps a block of `size` bytes at a multiple of `align` bytes, which must be a power of two.
    ///
    /// Returns `None` if the source has no memory.
    pub fn alloc_large(&'static self, size: usize, align: usize) -> Option<NewLarge> {
        let mut arenas = SharedArenas::of(&self.shared);
        let new = LargeBlock::map::<P::Geometry>(&mut arenas, size, align)?;
        self.large.blocks.fetch_add(1, Relaxed);
        // SAFETY: the block was mapped just now.
        self.large.bytes.fetch_add(unsafe { new.block.size::<P::Geometry>() }, Relaxed);
        Some(new)
    }

    /// Returns the number and the size in bytes of all large blocks in use.
    ///
    /// Each figure is exact if no other thread allocates or frees such a block during the call.
    pub fn large_blocks(&self) -> (usize, usize) {
        (self.large.blocks.load(Relaxed), self.large.bytes.load(Relaxed))
    }

    /// Frees a large block. `errno` is unchanged, because the source restores it.
    ///
    /// # Safety
    ///
    /// - `block` must have come from [`alloc_large`](Self::alloc_large) of this family.
    /// - Nobody may use the block any more.
    pub unsafe fn free_large(&'static self, block: LargeBlock) {
        let mut arenas = SharedArenas::of(&self.shared);
        self.large.blocks.fetch_sub(1, Relaxed);
        // SAFETY: the block is in use (contract).
        self.large.bytes.fetch_sub(unsafe { block.size::<P::Geometry>() }, Relaxed);
        // SAFETY: the block came from the shared source, and nobody uses it (contract).
        unsafe { block.unmap::<P::Geometry>(&mut arenas) };
    }

    /// Grows or shrinks a large block, which may move. On `None`, the block is unchanged.
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
        // SAFETY: the block is in use (contract).
        let old = unsafe { block.size::<P::Geometry>() };
        // SAFETY: the block came from the shared source. Only the result is used (contract).
        let resized = unsafe { block.resize::<P::Geometry>(&mut arenas, size) }?;
        // SAFETY: the resized block is in use.
        let new = unsafe { resized.size::<P::Geometry>() };
        self.large.bytes.fetch_add(new.wrapping_sub(old), Relaxed);
        Some(resized)
    }
}
