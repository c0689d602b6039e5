//! How much of the last slot of each large mapping may be backed by memory.
//!
//! ```text
//!   mapping      ├─ slot ────────┼─ slot ────────┼─ slot ──┬─────┤
//!                                                 extent   │ never touched, or purged
//! ```
//!
//! A retained slot with a large extent would waste memory behind a shorter mapping. With the extents we
//! purge such a tail only if there is something to purge, so a loop that maps the same size again and
//! again makes no system call.

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
    /// Keeps the extents in `pages`, which has an item for each slot.
    pub(super) fn new(pages: &'a mut [u32]) -> Self {
        Self { pages }
    }

    /// Notes that a mapping has used the slots of `run`, and `pages` pages of the last one.
    ///
    /// `slot_pages` is the number of pages in a slot. `is_stale` means that the extent of the last
    /// slot was known before.
    pub(super) fn note(&mut self, run: Range<usize>, slot_pages: u32, pages: u32, is_stale: bool) {
        let Some(run) = self.pages.get_mut(run) else { return };
        let Some((last, others)) = run.split_last_mut() else { return };
        others.fill(slot_pages);
        *last = if is_stale { pages.max(*last) } else { pages };
    }

    /// Cuts the extent of a slot to `pages` pages if it is greater by more than `allowed` pages.
    ///
    /// Returns the pages that must be purged.
    pub(super) fn cut(&mut self, slot: usize, pages: u32, allowed: u32) -> Option<Range<u32>> {
        let extent = self.pages.get_mut(slot)?;
        if extent.checked_sub(pages)? <= allowed {
            return None;
        }
        Some(pages..core::mem::replace(extent, pages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_cut_once_if_it_is_longer_than_allowed() {
        let mut pages = [0; 4];
        let mut extents = Extents::new(&mut pages);
        extents.note(0..3, 256, 100, false);
        assert_eq!(extents.cut(2, 90, 10), None);
        assert_eq!(extents.cut(2, 90, 9), Some(90..100));
        assert_eq!(extents.cut(2, 90, 0), None);
        assert_eq!(extents.cut(0, 10, 20), Some(10..256));
        assert_eq!(extents.cut(9, 0, 0), None);
    }

    #[test]
    fn a_shorter_mapping_does_not_hide_what_a_longer_one_has_touched() {
        let mut pages = [0; 1];
        let mut extents = Extents::new(&mut pages);
        extents.note(0..1, 256, 200, false);
        extents.note(0..1, 256, 190, true);
        assert_eq!(extents.cut(0, 100, 0), Some(100..200));
        extents.note(0..1, 256, 7, false);
        assert_eq!(extents.cut(0, 5, 0), Some(5..7));
    }
}
