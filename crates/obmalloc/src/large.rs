//! Blocks that are too large for an arena. Each of them has its own mapping.
//!
//! ```text
//!   mapping, aligned like an arena       header + arena_size
//!   ├────────┬─────┬───────────┬─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─┤
//!   │ header │ tag │ unused    │ block                │
//!   ├────────┴─────┴───────────┴─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─┤
//!   ├─────────── offset ───────┤ a page, or the alignment of the block
//! ```
//!
//! If the geometry stores all pool headers of an arena at its start (`HeaderRule::InArena`), each
//! arena also stores a tag there. A large block's tag is as far after the block's header as an
//! arena's tag is after the start of the arena. When a block is freed, we therefore find its tag
//! in the same way whether the block is large or lies in an arena, and the tag's value tells us
//! which of the two is the case.
//!
//! The tag of a large mapping is [`HeapTag::LARGE`]. The tag of an arena identifies the heap that
//! owns the arena.
//!
//! The header of a large block begins at the last multiple of `arena_size` before the block. We
//! find the header by rounding the address of the byte before the block down to this multiple.

use core::ptr::NonNull;

use raw_mem::{ArenaSource, LargeMapping, MAX_REQUEST, resize_or_copy};

use crate::{
    geometry::{Geometry, shape::Shape},
    heap::self_check,
    pool::{PoolPtr, tag::HeapTag},
};

pub(crate) mod of_heap;
pub(crate) mod retained;
mod size;

use size::rounded;

/// The distance from the start of a mapping to a block without a special alignment, in bytes.
///
/// No system has smaller pages, so header and block never share a page.
pub(crate) const OFFSET: usize = 4096;

/// The header at the start of a mapping.
#[derive(Debug)]
struct Header {
    /// # Invariant
    ///
    /// The mapping came from the source that is responsible for this block, and has this address
    /// and size.
    mapping: NonNull<u8>,
    bytes: usize,
    /// The index of the list that can retain a mapping of this size, or [`usize::MAX`] if none can.
    list: usize,
    next: Option<LargeBlock>,
    /// The previous block in the list of [`LargeBlocks`].
    ///
    /// In builds in which heaps check themselves (see `self_check`), a retained block stores its
    /// own address here. A block in use never does. If the program frees a retained block, the heap
    /// therefore detects the double free.
    prev: Option<LargeBlock>,
}

/// A block that has its own mapping.
///
/// The value is a plain pointer, so its user must ensure that the block is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeBlock(
    /// # Invariant
    ///
    /// Points to a block that [`map`](Self::map) has returned.
    NonNull<u8>,
);

/// A new block, and whether its contents are known to be zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewLarge {
    /// The block.
    pub block: LargeBlock,
    /// True if all bytes of the block are zero.
    pub is_zeroed: bool,
}

impl LargeBlock {
    /// The bytes of a mapping before a block without a special alignment.
    pub const OVERHEAD: usize = OFFSET;

    /// Returns true if the addresses of a process could have room for a block of `size` bytes.
    ///
    /// If this returns false, no free memory can help, so a caller should not look for any.
    #[inline]
    #[must_use]
    pub const fn may_exist<G: Geometry>(size: usize) -> bool {
        matches!(size.checked_shr(G::SIZES.address_bits), None | Some(0))
    }

    /// Maps a block of `size` bytes at a multiple of `align` bytes.
    ///
    /// If the source has no memory, if `size` is too large, or if `align` is not a power of two, no
    /// block is mapped and the result is `None`.
    pub fn map<G: Geometry>(
        source: &mut impl ArenaSource,
        size: usize,
        align: usize,
    ) -> Option<NewLarge> {
        if !align.is_power_of_two() {
            return None;
        }
        let arena = Shape::<G>::ARENA;
        let unit = arena.bytes();
        let room = align.max(OFFSET);
        let bytes = size.checked_add(room).filter(|bytes| *bytes <= MAX_REQUEST)?;
        let bytes = rounded(bytes);
        let mapping = source.map_large(bytes, arena).ok()?;
        let offset = if align < unit {
            room
        } else {
            // The header begins `unit` bytes before the block. The offset is at most `align`,
            // because `unit` divides `mapping.start` and `align`.
            let first = mapping.start.addr().get() + unit;
            first.next_multiple_of(align) - mapping.start.addr().get()
        };
        // SAFETY: the block begins at most `room` bytes after the start of the mapping.
        let start = unsafe { mapping.start.add(offset) };
        // INVARIANT: the header is written below.
        let block = Self(start);
        let LargeMapping { start: mapping, bytes, is_zeroed } = mapping;
        let list = list_of(bytes, offset);
        let header = Header { mapping, bytes, list, next: None, prev: None };
        let place = block.header::<G>();
        // SAFETY: the header lies in the new mapping, before the block.
        unsafe { place.write(header) };
        // SAFETY: as above. The tag lies after the header, and before the block.
        unsafe { PoolPtr::tag_large::<G>(place.cast(), HeapTag::LARGE) };
        Some(NewLarge { block, is_zeroed })
    }

    /// Returns the block that begins at `start`.
    ///
    /// # Safety
    ///
    /// `start` must be the start of a block that [`map`](Self::map) has returned.
    #[inline]
    pub const unsafe fn from_start(start: NonNull<u8>) -> Self {
        // INVARIANT: `map` has returned the block (contract of `from_start`).
        Self(start)
    }

    /// Returns a pointer to the first byte of the block.
    #[inline]
    pub const fn start(self) -> NonNull<u8> {
        self.0
    }

    /// Returns the address of the block's header.
    ///
    /// The header lies at the last multiple of the arena size before the block. This is the start
    /// of the mapping, unless the block is aligned to more than the size of an arena.
    pub fn header_address<G: Geometry>(self) -> usize {
        self.0.addr().get() - self.distance_to_header::<G>()
    }

    /// Returns the number of bytes between the header and the block.
    fn distance_to_header<G: Geometry>(self) -> usize {
        (self.0.addr().get() - 1) % Shape::<G>::ARENA.bytes() + 1
    }

    /// Returns a pointer to the block's header.
    ///
    /// The pointer may be dereferenced only if the block is in use, in a heap with the geometry
    /// `G`.
    fn header<G: Geometry>(self) -> NonNull<Header> {
        let header = self.0.as_ptr().wrapping_sub(self.distance_to_header::<G>());
        // The fallback is never used for a block in use, because nothing is mapped at address 0.
        NonNull::new(header).unwrap_or(self.0).cast()
    }

    /// Returns the number of bytes that can be used.
    ///
    /// # Safety
    ///
    /// The block must be in use, in a heap with the geometry `G`.
    #[inline]
    pub unsafe fn size<G: Geometry>(self) -> usize {
        // SAFETY: the block is in use (contract), so its header is valid.
        unsafe { self.header::<G>().as_ref().bytes - self.offset::<G>() }
    }

    /// Returns the number of bytes between the start of the block's mapping and the block.
    ///
    /// This number is [`OVERHEAD`](Self::OVERHEAD), unless the block was requested with an
    /// alignment of more than `OVERHEAD` bytes.
    ///
    /// # Safety
    ///
    /// - The block must be in use, in a heap with the geometry `G`.
    #[inline]
    pub unsafe fn offset<G: Geometry>(self) -> usize {
        // SAFETY: the block is in use (contract), so its header is valid.
        let mapping = unsafe { self.header::<G>().as_ref() }.mapping;
        self.0.addr().get() - mapping.addr().get()
    }

    /// Ends the process if a heap retains the block, because the program is then freeing the block
    /// for the second time.
    ///
    /// Does nothing in builds in which heaps do not check themselves.
    ///
    /// # Safety
    ///
    /// - The block must be in use or retained, in a heap with the geometry `G`.
    #[inline]
    unsafe fn check_in_use<G: Geometry>(self) {
        if !self_check::IS_ON {
            return;
        }
        // SAFETY: the block is in use or retained (contract), so its header is mapped and valid.
        if unsafe { self.header::<G>().as_ref() }.prev == Some(self) {
            // SAFETY: as above.
            self_check::fail_freed_twice(self.0, unsafe { self.size::<G>() });
        }
    }

    /// Unmaps the block.
    ///
    /// # Safety
    ///
    /// - `self` must be a live block from `source`, with the geometry `G`.
    /// - Nothing may use the block afterwards.
    pub unsafe fn unmap<G: Geometry>(self, source: &mut impl ArenaSource) {
        // SAFETY: the block is in use (contract).
        unsafe { self.check_in_use::<G>() };
        // SAFETY: the block is in use (contract), so its header is valid.
        let Header { mapping, bytes, .. } = unsafe { self.header::<G>().read() };
        // SAFETY: the mapping came from the source (invariant), and nothing uses it (contract).
        unsafe { source.unmap_large(mapping, bytes, Shape::<G>::ARENA) };
    }

    /// Returns true if [`resize`](Self::resize) can move the block.
    ///
    /// A block that was mapped with an alignment of at least the size of an arena cannot move,
    /// because its new address might not have this alignment.
    ///
    /// # Safety
    ///
    /// The block must be in use, in a heap with the geometry `G`.
    pub unsafe fn can_move<G: Geometry>(self) -> bool {
        // SAFETY: the block is in use (contract).
        unsafe { self.offset::<G>() < Shape::<G>::ARENA.bytes() }
    }

    /// Grows or shrinks the block to at least `size` bytes, and keeps its contents.
    ///
    /// The block may move. Returns `None` and leaves the block unchanged in these cases:
    /// - The source has no memory.
    /// - `size` is too large.
    /// - The block [cannot move](Self::can_move).
    ///
    /// # Safety
    ///
    /// - `self` must be a live block from `source`, with the geometry `G`.
    /// - If this call returns a block, the returned block replaces `self`, which must not be used
    ///   afterwards.
    pub unsafe fn resize<G: Geometry>(
        self,
        source: &mut impl ArenaSource,
        size: usize,
    ) -> Option<Self> {
        let arena = Shape::<G>::ARENA;
        let place = self.header::<G>();
        // SAFETY: the block is in use (contract), so its header is valid.
        let Header { mapping, bytes, .. } = unsafe { place.read() };
        // SAFETY: as above.
        let (offset, can_move) = unsafe { (self.offset::<G>(), self.can_move::<G>()) };
        if !can_move {
            return None;
        }
        let new = size.checked_add(offset).filter(|new| *new <= MAX_REQUEST)?;
        let new = rounded(new);
        // SAFETY: the mapping came from the source (invariant). Only the result is used afterwards.
        let resized = unsafe { resize_or_copy(source, mapping, bytes, new, arena) }.ok()?;
        // SAFETY: the mapping is at least `new` bytes long, and `new` is at least `offset`.
        let block = Self(unsafe { resized.start.add(offset) });
        let header = block.header::<G>();
        // SAFETY: the header has moved with the block.
        let header = unsafe { &mut *header.as_ptr() };
        // INVARIANT: the source has returned this mapping in place of the old one.
        (header.mapping, header.bytes) = (resized.start, resized.bytes);
        header.list = list_of(resized.bytes, offset);
        Some(block)
    }
}

/// Returns the index of the list for the rounded size `bytes`, or [`usize::MAX`] if the size is not
/// rounded.
///
/// Also returns [`usize::MAX`] for a block that does not begin [`OFFSET`] bytes after its header.
fn list_of(bytes: usize, offset: usize) -> usize {
    match size::index(bytes) {
        Some(list) if offset == OFFSET && rounded(bytes) == bytes => list,
        _ => usize::MAX,
    }
}

/// The large blocks that belong to one heap. They are unmapped when the heap is reset or dropped.
#[derive(Debug)]
pub(crate) struct LargeBlocks {
    /// # Invariant
    ///
    /// The first block of a doubly linked list of blocks in use, which came from the heap's source.
    first: Option<LargeBlock>,
    /// The number of blocks.
    count: usize,
    /// The size of all blocks in bytes.
    bytes: usize,
}

impl LargeBlocks {
    pub(crate) const NONE: Self = Self { first: None, count: 0, bytes: 0 };

    /// Returns the number of blocks.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Iterates over the first byte and the size of each block.
    pub(crate) fn iter<G: Geometry>(&self) -> impl Iterator<Item = (NonNull<u8>, usize)> {
        // SAFETY: the block is in the list, so it is in use (invariant).
        let next = |block: &LargeBlock| unsafe { block.header::<G>().as_ref() }.next;
        core::iter::successors(self.first, next)
            // SAFETY: as above.
            .map(|block| (block.start(), unsafe { block.size::<G>() }))
    }

    /// Returns the size of all blocks in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a block.
    ///
    /// # Safety
    ///
    /// - The block must be in use and in no list.
    /// - It must have come from the heap's source.
    pub(crate) unsafe fn insert<G: Geometry>(&mut self, block: LargeBlock) {
        // SAFETY: the block is in use (contract).
        let header = unsafe { &mut *block.header::<G>().as_ptr() };
        (header.next, header.prev) = (self.first, None);
        if let Some(first) = self.first {
            // SAFETY: the block is in use (invariant), and is not the block that is being inserted.
            unsafe { &mut *first.header::<G>().as_ptr() }.prev = Some(block);
        }
        // INVARIANT: the block is in use, and leads to the others.
        self.first = Some(block);
        // SAFETY: the block is in use (contract).
        self.bytes += unsafe { block.size::<G>() };
        self.count += 1;
    }

    /// Removes a block.
    ///
    /// # Safety
    ///
    /// - The block must be in this list.
    pub(crate) unsafe fn remove<G: Geometry>(&mut self, block: LargeBlock) {
        // SAFETY: the block is in use (contract).
        unsafe { block.check_in_use::<G>() };
        // SAFETY: the block is in the list (contract), so it is in use (invariant).
        let Header { next, prev, .. } = unsafe { block.header::<G>().read() };
        if let Some(next) = next {
            // SAFETY: the block is in use (invariant), and is not the block that is being removed.
            unsafe { &mut *next.header::<G>().as_ptr() }.prev = prev;
        }
        match prev {
            // SAFETY: as above.
            Some(prev) => unsafe { &mut *prev.header::<G>().as_ptr() }.next = next,
            None => self.first = next,
        }
        // SAFETY: the block is in use (invariant).
        self.bytes -= unsafe { block.size::<G>() };
        self.count -= 1;
    }

    /// Removes every block, and unmaps it. O(blocks).
    ///
    /// # Safety
    ///
    /// - `source` must be the heap's source.
    /// - The blocks must not be used afterwards.
    pub(crate) unsafe fn unmap_all<G: Geometry>(&mut self, source: &mut impl ArenaSource) {
        while let Some(block) = self.first {
            // SAFETY: the first block is in the list.
            unsafe { self.remove::<G>(block) };
            // SAFETY: the block came from the source (invariant), and is not used afterwards
            // (contract).
            unsafe { block.unmap::<G>(source) };
        }
    }
}

#[cfg(test)]
mod tests {
    use core::slice;

    use raw_mem::MmapArenas;

    use super::*;
    use crate::geometry::eras::Native;

    const MIB: usize = 1 << 20;

    fn is_zero(block: LargeBlock, size: usize) -> bool {
        // SAFETY: the block has this many bytes, all of which are initialised.
        let bytes = unsafe { slice::from_raw_parts(block.start().as_ptr(), size) };
        bytes.iter().all(|byte| *byte == 0)
    }

    #[test]
    fn a_block_of_any_alignment_can_be_used_and_unmapped() {
        let mut source = MmapArenas::new();
        for align in (0..=23).map(|bits| 1 << bits) {
            for size in [1, 500_000, MIB, 3 * MIB + 1] {
                let new = LargeBlock::map::<Native>(&mut source, size, align).unwrap();
                let block = new.block;
                assert_eq!(block.start().addr().get() % align, 0);
                assert!(!new.is_zeroed || is_zero(block, size));
                // SAFETY: the block is in use, and has this many bytes.
                unsafe {
                    let usable = block.size::<Native>();
                    let most = size + size / 8 + align.max(2 * 4096);
                    assert!(usable >= size && usable < most.max(MIB));
                    block.start().write_bytes(7, usable);
                    assert_eq!(PoolPtr::tag_at::<Native>(block.start().sub(1)), HeapTag::LARGE);
                    assert_eq!(LargeBlock::from_start(block.start()), block);
                    block.unmap::<Native>(&mut source);
                }
            }
        }
    }

    #[test]
    fn a_resized_block_keeps_its_contents() {
        let mut source = MmapArenas::new();
        let mut block = LargeBlock::map::<Native>(&mut source, MIB, 64).unwrap().block;
        // SAFETY: the block has this many bytes.
        unsafe { block.start().write_bytes(7, MIB) };
        for size in [2 * MIB, 16 * MIB, 3 * MIB, MIB] {
            // SAFETY: the block is in use, and replaced by the result.
            block = unsafe { block.resize::<Native>(&mut source, size) }.unwrap();
            // SAFETY: the block is in use.
            assert!(unsafe { block.size::<Native>() } >= size);
            // SAFETY: the first bytes were initialised above.
            let bytes = unsafe { slice::from_raw_parts(block.start().as_ptr(), MIB) };
            assert!(
                bytes.iter().all(|byte| *byte == 7)
                    && block.start().addr().get().is_multiple_of(64)
            );
        }
        // SAFETY: the block is in use, and not used again.
        unsafe { block.unmap::<Native>(&mut source) };
    }

    #[test]
    fn a_block_with_a_great_alignment_is_not_resized() {
        let mut source = MmapArenas::new();
        let block = LargeBlock::map::<Native>(&mut source, MIB, 4 * MIB).unwrap().block;
        // SAFETY: the block is in use.
        assert_eq!(unsafe { block.resize::<Native>(&mut source, 2 * MIB) }, None);
        // SAFETY: the block is in use, and not used again.
        unsafe { block.unmap::<Native>(&mut source) };
    }

    #[test]
    fn an_impossible_size_is_refused() {
        let mut source = MmapArenas::new();
        for (size, align) in [(usize::MAX, 1), (MAX_REQUEST, 1), (MAX_REQUEST - 8, MIB)] {
            assert_eq!(LargeBlock::map::<Native>(&mut source, size, align), None);
        }
    }

    #[test]
    fn a_list_forgets_a_block_at_any_place_and_unmaps_the_others() {
        for removed in 0..3 {
            let (mut source, mut list) = (MmapArenas::new(), LargeBlocks::NONE);
            let blocks = [(); 3].map(|()| {
                let block = LargeBlock::map::<Native>(&mut source, MIB, 1).unwrap().block;
                // SAFETY: the block came from the source just now.
                unsafe { list.insert::<Native>(block) };
                block
            });
            assert!(list.bytes() >= 3 * MIB);
            // SAFETY: the block is in the list, and is not used again.
            unsafe {
                list.remove::<Native>(blocks[removed]);
                blocks[removed].unmap::<Native>(&mut source);
                list.unmap_all::<Native>(&mut source);
            }
            assert_eq!((list.bytes(), list.first), (0, None));
        }
    }
}
