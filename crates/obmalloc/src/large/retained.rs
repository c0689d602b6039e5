//! The large blocks that a heap retains after they were freed.

use super::{
    LargeBlock, OFFSET,
    size::{self, SIZES},
};
use crate::{
    geometry::{Geometry, shape::Shape},
    heap::self_check,
};

/// Free large blocks that stay mapped. There is one list for each size of their mappings.
///
/// The blocks are counted in slots, which have the size of an arena.
#[derive(Debug)]
pub(crate) struct RetainedLarge {
    /// # Invariant
    ///
    /// - Every block in a list is free, and has its own mapping, which came from the heap's arena
    ///   source.
    /// - All mappings in `lists[i]` have the same size, which is the rounded size with the index
    ///   `i` (see the module `size`).
    /// - Every mapping begins with the header of its block, and the block begins [`OFFSET`] bytes
    ///   after the start of the mapping.
    lists: [Option<LargeBlock>; SIZES],
    blocks: usize,
    bytes: usize,
    slots: usize,
}

impl RetainedLarge {
    pub(crate) const NONE: Self = Self { lists: [None; SIZES], blocks: 0, bytes: 0, slots: 0 };

    /// Returns the number of slots that the blocks occupy.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// Returns the number of blocks, and the size of their mappings in bytes.
    pub(crate) fn count(&self) -> (usize, usize) {
        (self.blocks, self.bytes)
    }

    /// Returns the number of slots that `block` would occupy, or `None` if no list has its
    /// mapping's size.
    ///
    /// # Safety
    ///
    /// - `block` must be in use, in a heap with the geometry `G`.
    #[inline]
    pub(crate) unsafe fn slots_of<G: Geometry>(block: LargeBlock) -> Option<usize> {
        // SAFETY: the block is in use (contract), so its header is valid.
        let header = unsafe { block.header::<G>().as_ref() };
        (header.list < SIZES).then(|| slots_for::<G>(header.bytes))
    }

    /// Adds a block, for which [`slots_of`](Self::slots_of) must not return `None`.
    ///
    /// # Safety
    ///
    /// - `block` must be live, and its mapping must have been made by the heap's arena source.
    /// - `block` must not be in any list of retained blocks.
    /// - The caller must not use `block` after this call.
    #[inline]
    pub(crate) unsafe fn push<G: Geometry>(&mut self, block: LargeBlock) {
        // SAFETY: the block is in use (contract).
        unsafe { block.check_in_use::<G>() };
        // SAFETY: the block is in use (contract), so its header is valid. Nothing else refers to it.
        let header = unsafe { block.header::<G>().as_mut() };
        let Some(list) = self.lists.get_mut(header.list) else { return };
        header.next = *list;
        if self_check::IS_ON {
            header.prev = Some(block);
        }
        // INVARIANT: the block is no longer used (contract), and its header gives the index of this
        // list.
        *list = Some(block);
        self.blocks += 1;
        self.bytes += header.bytes;
        self.slots += slots_for::<G>(header.bytes);
    }

    /// Removes a block that can serve a request of `size` bytes without a special alignment.
    #[inline]
    pub(crate) fn pop<G: Geometry>(&mut self, size: usize) -> Option<LargeBlock> {
        self.pop_from::<G>(size::index(size.checked_add(OFFSET)?)?)
    }

    /// Removes a block from any list.
    pub(crate) fn pop_any<G: Geometry>(&mut self) -> Option<LargeBlock> {
        (0..SIZES).rev().find_map(|index| self.pop_from::<G>(index))
    }

    #[inline]
    fn pop_from<G: Geometry>(&mut self, index: usize) -> Option<LargeBlock> {
        let list = self.lists.get_mut(index)?;
        let block = (*list)?;
        // SAFETY: a block of the list is mapped and not in use (invariant), so its header is valid.
        let header = unsafe { block.header::<G>().as_mut() };
        *list = header.next;
        if self_check::IS_ON {
            header.prev = None;
        }
        self.blocks -= 1;
        self.bytes -= header.bytes;
        self.slots -= slots_for::<G>(header.bytes);
        Some(block)
    }
}

/// Returns the number of slots that a mapping of `bytes` bytes occupies.
fn slots_for<G: Geometry>(bytes: usize) -> usize {
    bytes.div_ceil(Shape::<G>::ARENA.bytes())
}
