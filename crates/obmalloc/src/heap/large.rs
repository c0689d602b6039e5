//! The large blocks of a heap: those in use, and those that it retains after they were freed.
//!
//! ```text
//!   map_large ── a retained block of the size ──────────────► block
//!             └─ a mapping of the source ───────────────────► block
//!
//!   unmap_large ── the heap may retain it ──► a list of the heap
//!               └─ otherwise ───────────────► the source unmaps it, or retains it for all heaps
//! ```
//!
//! A heap can reuse the large blocks that it retains without taking a lock. If a heap could retain
//! every block that it frees, a heap that frees many blocks of other heaps would hoard memory. A
//! heap therefore never retains more memory in large blocks than it has requested from the arena
//! source since it last unmapped all of its retained blocks. The arena source sets a second limit
//! on the large blocks that all heaps and the source itself retain together.

use core::ptr::NonNull;

use raw_mem::{ArenaSource, MemAlloc};

use crate::{
    geometry::Geometry,
    heap::{Heap, stats::LargeStats},
    large::{LargeBlock, NewLarge, OFFSET, retained::RetainedLarge},
};

impl<S: ArenaSource, A: MemAlloc, G: Geometry> Heap<S, A, G> {
    /// Allocates a block with its own mapping, at a multiple of `align` bytes.
    ///
    /// The block belongs to this heap. If the heap is reset or dropped before the block is freed,
    /// the block is unmapped. Returns `None` if the heap's arena source has no memory, or if
    /// `align` is not a power of two.
    #[must_use = "the block leaks unless it is freed"]
    pub fn alloc_large(&mut self, size: usize, align: usize) -> Option<NewLarge> {
        let new = self.map_large(size, align)?;
        // SAFETY: the block came from this heap's source just now.
        unsafe { self.large.in_use.insert::<G>(new.block) };
        Some(new)
    }

    /// Frees a large block.
    ///
    /// # Safety
    ///
    /// - `block` must have come from [`alloc_large`](Self::alloc_large) of this heap.
    /// - The block must not be used again.
    pub unsafe fn free_large(&mut self, block: LargeBlock) {
        // SAFETY: the block is in use, and in the list of this heap (contract).
        unsafe { self.large.in_use.remove::<G>(block) };
        // SAFETY: the block came from this heap's source, and is not used again (contract).
        unsafe { self.unmap_large(block) };
    }

    /// Grows or shrinks a large block, which may move. If this returns `None`, the block is
    /// unchanged.
    ///
    /// See [`LargeBlock::resize`].
    ///
    /// # Safety
    ///
    /// - `block` must have come from [`alloc_large`](Self::alloc_large) of this heap.
    /// - Only the returned block may be used afterwards.
    pub unsafe fn resize_large(&mut self, block: LargeBlock, size: usize) -> Option<LargeBlock> {
        // SAFETY: the block is in use, and in the list of this heap (contract).
        unsafe { self.large.in_use.remove::<G>(block) };
        // SAFETY: the block came from this heap's source. Only the result is used (contract).
        let resized = unsafe { block.resize::<G>(&mut self.source, size) };
        // SAFETY: the block is in use, and was removed above.
        unsafe { self.large.in_use.insert::<G>(resized.unwrap_or(block)) };
        resized
    }

    /// Returns the number and the total size of the large blocks in use that belong to this heap.
    pub(crate) fn large_stats(&self) -> LargeStats {
        LargeStats { blocks: self.large.in_use.count(), bytes: self.large.in_use.bytes() }
    }

    /// Iterates over the first byte and the size of each large block in use that belongs to this heap.
    pub(crate) fn large_blocks(&self) -> impl Iterator<Item = (NonNull<u8>, usize)> {
        self.large.in_use.iter::<G>()
    }

    /// Returns the total size of the large blocks in use that belong to this heap, in bytes.
    pub fn large_bytes(&self) -> usize {
        self.large.in_use.bytes()
    }

    /// Returns the number of large blocks that the heap retains, and the total size of their
    /// mappings in bytes.
    pub fn retained_large(&self) -> (usize, usize) {
        self.large.retained.count()
    }

    /// Returns the number of slots of large mappings that the source allows the heap to retain.
    pub fn granted_large(&self) -> usize {
        self.large.granted
    }

    /// Allocates a large block that does not belong to the heap, so dropping the heap does not
    /// unmap it.
    ///
    /// Every heap over the same source can free the block. See [`alloc_large`](Self::alloc_large).
    #[must_use = "the block leaks unless it is freed"]
    pub fn map_large(&mut self, size: usize, align: usize) -> Option<NewLarge> {
        match self.reuse_large(size, align) {
            Some(block) => Some(NewLarge { block, is_zeroed: false }),
            None => self.map_new_large(size, align),
        }
    }

    /// Allocates one of the large blocks that the heap retains. The block does not belong to the
    /// heap. O(1).
    ///
    /// If this returns `None`, [`map_large`](Self::map_large) may still find memory.
    #[inline]
    #[must_use = "the block leaks unless it is freed"]
    pub fn reuse_large(&mut self, size: usize, align: usize) -> Option<LargeBlock> {
        if align > OFFSET || !align.is_power_of_two() {
            return None;
        }
        let block = self.large.retained.pop::<G>(size)?;
        self.large.was_reused = true;
        Some(block)
    }

    #[cold]
    fn map_new_large(&mut self, size: usize, align: usize) -> Option<NewLarge> {
        let new = LargeBlock::map::<G>(&mut self.source, size, align).or_else(|| {
            self.release_large();
            LargeBlock::map::<G>(&mut self.source, size, align)
        })?;
        // SAFETY: the block is in use.
        if let Some(slots) = unsafe { RetainedLarge::slots_of::<G>(new.block) } {
            self.large.requested = self.large.requested.saturating_add(slots);
        }
        self.release_excess_large();
        Some(new)
    }

    /// Frees a large block that does not belong to a heap. The heap may retain it.
    ///
    /// # Safety
    ///
    /// - `block` must be a live block that came from this heap's arena source,
    ///   through [`map_large`](Self::map_large) or [`LargeBlock::map`].
    /// - The caller must not use `block` afterwards.
    pub unsafe fn unmap_large(&mut self, block: LargeBlock) {
        // SAFETY: the block is in use (contract).
        if unsafe { self.may_retain_large(block) } {
            // SAFETY: the block came from this heap's source, and is not used again (contract).
            unsafe { self.large.retained.push::<G>(block) };
        } else {
            // SAFETY: as above.
            unsafe { block.unmap::<G>(&mut self.source) };
        }
    }

    /// Returns true if the heap may retain `block`. If the heap needs more slots for it, asks the
    /// source.
    ///
    /// # Safety
    ///
    /// - `block` must be in use, in a heap with the geometry `G`.
    #[inline]
    unsafe fn may_retain_large(&mut self, block: LargeBlock) -> bool {
        // SAFETY: the block is in use (contract).
        let Some(slots) = (unsafe { RetainedLarge::slots_of::<G>(block) }) else { return false };
        let slots = self.large.retained.slots() + slots;
        slots <= self.large.granted || self.is_granted_large(slots)
    }

    #[cold]
    fn is_granted_large(&mut self, slots: usize) -> bool {
        if slots > self.large.requested {
            return false;
        }
        self.large.granted = self.source.retain_large(self.large.granted, slots);
        self.unmap_ungranted_large();
        slots <= self.large.granted
    }

    /// Unmaps the retained blocks that the source no longer allows.
    pub(crate) fn release_excess_large(&mut self) {
        if self.large.granted > 0 {
            let slots = self.large.retained.slots();
            self.large.granted = self.source.retain_large(self.large.granted, slots);
            self.unmap_ungranted_large();
        }
    }

    /// Unmaps the retained blocks that the source no longer allows, unless some were used again
    /// since the last call.
    pub(crate) fn sweep_large(&mut self) {
        if !core::mem::take(&mut self.large.was_reused) {
            self.release_excess_large();
        }
    }

    /// Unmaps all retained blocks.
    pub(crate) fn release_large(&mut self) {
        self.large.requested = 0;
        if self.large.granted > 0 {
            self.source.retain_large(self.large.granted, 0);
            self.large.granted = 0;
            self.unmap_ungranted_large();
        }
    }

    fn unmap_ungranted_large(&mut self) {
        while self.large.retained.slots() > self.large.granted
            && let Some(block) = self.large.retained.pop_any::<G>()
        {
            // SAFETY: the block came from this heap's source, and is not in use.
            unsafe { block.unmap::<G>(&mut self.source) };
        }
    }

    /// Unmaps all large blocks.
    ///
    /// # Safety
    ///
    /// - The blocks must not be used afterwards.
    pub(crate) unsafe fn unmap_all_large(&mut self) {
        self.release_large();
        // SAFETY: the blocks came from this source, and are not used afterwards (contract).
        unsafe { self.large.in_use.unmap_all::<G>(&mut self.source) };
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use raw_mem::{Malloc, MmapArenas, ReservedArenas};

    use super::*;
    use crate::geometry::eras::Native;

    type Source = ReservedArenas<MmapArenas>;
    type TestHeap<S> = Heap<S, Malloc, Native>;

    const MIB: usize = 1 << 20;

    fn map<S: ArenaSource>(heap: &mut TestHeap<S>, sizes: &[usize]) -> Vec<LargeBlock> {
        sizes.iter().map(|size| heap.map_large(*size, 16).unwrap().block).collect()
    }

    fn unmap<S: ArenaSource>(heap: &mut TestHeap<S>, blocks: Vec<LargeBlock>) {
        for block in blocks {
            // SAFETY: the tests free each block once, to a heap over the same source.
            unsafe { heap.unmap_large(block) };
        }
    }

    /// Creates a heap that has repeatedly requested and freed blocks of `sizes`.
    fn heap(sizes: &[usize]) -> TestHeap<Source> {
        let mut heap = Heap::with_geometry(ReservedArenas::new(MmapArenas::new()), Malloc);
        for _ in 0..3 {
            let blocks = map(&mut heap, sizes);
            unmap(&mut heap, blocks);
        }
        heap
    }

    #[test]
    fn the_first_block_that_is_freed_is_not_retained() {
        let mut heap = heap(&[]);
        let blocks = map(&mut heap, &[MIB]);
        unmap(&mut heap, blocks);
        assert_eq!((heap.retained_large(), heap.granted_large()), ((0, 0), 0));
    }

    #[test]
    fn a_retained_block_serves_the_next_request_of_about_its_size() {
        let mut heap = heap(&[3 * MIB, MIB]);
        assert_eq!(heap.retained_large().0, 2);
        assert_eq!(heap.reuse_large(2 * MIB, 16), None);
        assert_eq!(heap.reuse_large(3 * MIB, 8192), None);
        let block = heap.reuse_large(3 * MIB - 2000, 4096).unwrap();
        // SAFETY: the block is in use.
        assert!(unsafe { block.size::<Native>() } >= 3 * MIB);
        assert_eq!(heap.retained_large().0, 1);
        unmap(&mut heap, Vec::from([block]));
        assert_eq!(heap.retained_large().0, 2);
        heap.trim();
        assert_eq!((heap.retained_large(), heap.granted_large()), ((0, 0), 0));
    }

    #[test]
    fn a_trimmed_heap_retains_nothing_before_it_has_requested_as_much_again() {
        let mut heap = heap(&[MIB / 2, MIB / 2]);
        assert_eq!(heap.retained_large().0, 2);
        let blocks = map(&mut heap, &[MIB / 2]);
        heap.trim();
        unmap(&mut heap, blocks);
        assert_eq!(heap.retained_large().0, 0);
        let blocks = map(&mut heap, &[MIB / 2]);
        unmap(&mut heap, blocks);
        assert_eq!(heap.retained_large().0, 1);
    }

    #[test]
    fn a_resized_block_is_retained_with_its_new_size() {
        let mut heap = heap(&[MIB, MIB, MIB, MIB]);
        let block = heap.map_large(MIB, 16).unwrap().block;
        // SAFETY: the block came from the source of this heap, and is replaced by the result.
        let block = unsafe { block.resize::<Native>(&mut heap.source, 2 * MIB) }.unwrap();
        heap.trim();
        unmap(&mut heap, Vec::from([block]));
        for _ in 0..2 {
            let block = map(&mut heap, &[2 * MIB]);
            unmap(&mut heap, block);
        }
        assert_eq!(heap.reuse_large(MIB, 16), None);
        assert!(heap.reuse_large(2 * MIB, 16).is_some());
    }

    #[test]
    fn a_heap_does_not_hoard_the_blocks_of_other_heaps() {
        let mut source = ReservedArenas::new(MmapArenas::new());
        let pointer = &raw mut source;
        let heap = || -> TestHeap<&mut Source> {
            // SAFETY: the heaps use the source in turn, and it outlives them.
            Heap::with_geometry(unsafe { &mut *pointer }, Malloc)
        };
        let (mut mine, mut other) = (heap(), heap());
        for _ in 0..3 {
            let blocks = map(&mut mine, &[MIB, 2 * MIB]);
            unmap(&mut other, blocks);
        }
        assert_eq!((other.retained_large(), mine.retained_large()), ((0, 0), (0, 0)));
    }

    #[test]
    fn a_source_that_retains_nothing_gets_every_block_back() {
        let mut heap: TestHeap<MmapArenas> = Heap::with_geometry(MmapArenas::new(), Malloc);
        for _ in 0..3 {
            let blocks = map(&mut heap, &[MIB, 2 * MIB]);
            unmap(&mut heap, blocks);
        }
        assert_eq!((heap.retained_large(), heap.granted_large()), ((0, 0), 0));
    }

    #[test]
    fn a_miss_gives_back_what_the_recent_peak_does_not_allow() {
        let mut heap = heap(&[MIB, MIB, MIB, MIB]);
        let retained = heap.retained_large().0;
        assert_eq!(retained, 4);
        // All of the memory of the recent peak is in use again, so no more memory may be retained.
        let blocks = map(&mut heap, &[6 * MIB]);
        assert!(heap.retained_large().0 < retained, "{:?}", heap.retained_large());
        unmap(&mut heap, blocks);
    }
}
