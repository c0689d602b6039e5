//! The extent of each slot, which is the part of the slot that may be backed by memory.
//!
//! ```text
//!   mapping      ├─ slot ────────┼─ slot ────────┼─ slot ──┬─────┤
//!                                                 extent   │ never touched, or purged
//! ```
//!
//! A large mapping occupies whole slots, each as large as an arena, but it rarely fills its last
//! slot. If an earlier mapping has touched the rest of this slot, the rest is still backed by
//! memory. We return this memory to the system only when there is much of it, to save system calls.

#![forbid(unsafe_code)]

use core::ops::Range;

/// The extents of all slots, in an array that the caller provides.
pub(super) struct Extents<'a> {
    /// The number of pages from the start of each slot that may be backed by memory.
    ///
    /// The number is meaningful only if the slot is stale.
    pages: &'a mut [u32],
}

impl<'a> Extents<'a> {
    /// Stores the extents in `pages`, which must have an item for each slot.
    pub(super) fn new(pages: &'a mut [u32]) -> Self {
        Self { pages }
    }

    /// Records that a mapping has used the slots of `run`, but only the first `pages` pages of the
    /// last slot.
    ///
    /// `slot_pages` is the number of pages in a slot. `is_stale` must be true if the last slot of
    /// `run` still had memory of an earlier mapping when the present mapping began to use it. In
    /// this case, the slot's extent, which is the number of pages that may be backed by memory,
    /// does not become smaller. For example, if the earlier mapping touched 200 pages and the
    /// present one uses 190, all 200 may still be backed by memory.
    pub(super) fn note(&mut self, run: Range<usize>, slot_pages: u32, pages: u32, is_stale: bool) {
        let Some(run) = self.pages.get_mut(run) else { return };
        let Some((last, others)) = run.split_last_mut() else { return };
        others.fill(slot_pages);
        *last = if is_stale { pages.max(*last) } else { pages };
    }

    /// Records that the memory of the slots in `from` has moved to the slots that begin at `to`.
    ///
    /// The extent of each slot in `from` moves to the new slot together with the memory.
    pub(super) fn copy(&mut self, from: Range<usize>, to: usize) {
        if from.end.max(to + from.len()) <= self.pages.len() {
            self.pages.copy_within(from, to);
        }
    }

    /// Returns how many pages after the first `pages` pages of a slot may be backed by memory.
    pub(super) fn tail(&self, slot: usize, pages: u32) -> usize {
        self.pages.get(slot).map_or(0, |extent| extent.saturating_sub(pages) as usize)
    }

    /// Reduces the extent of a slot to `pages` pages. Returns the pages that must be purged.
    pub(super) fn cut(&mut self, slot: usize, pages: u32) -> Range<u32> {
        let extent = self.pages.get_mut(slot).filter(|extent| **extent > pages);
        pages..extent.map_or(pages, |extent| core::mem::replace(extent, pages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_cut_once() {
        let mut pages = [0; 4];
        let mut extents = Extents::new(&mut pages);
        extents.note(0..3, 256, 100, false);
        assert_eq!((extents.tail(2, 90), extents.tail(2, 101), extents.tail(9, 0)), (10, 0, 0));
        assert_eq!(extents.cut(2, 90), 90..100);
        assert_eq!((extents.tail(2, 90), extents.cut(2, 90)), (0, 90..90));
        assert_eq!((extents.cut(0, 10), extents.cut(9, 0)), (10..256, 0..0));
    }

    #[test]
    fn a_shorter_mapping_does_not_hide_what_a_longer_one_has_touched() {
        let mut pages = [0; 1];
        let mut extents = Extents::new(&mut pages);
        extents.note(0..1, 256, 200, false);
        extents.note(0..1, 256, 190, true);
        assert_eq!(extents.cut(0, 100), 100..200);
        extents.note(0..1, 256, 7, false);
        assert_eq!(extents.cut(0, 5), 5..7);
    }
}
