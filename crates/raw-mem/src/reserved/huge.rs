//! Huge pages in a reserved range.
//!
//! ```text
//!   slots        │ arena │ free  │ arena │ arena │ free  │ free  │
//!   huge pages   ├───────────────┼───────────────┼───────────────┤
//!                  in use          in use          returned
//! ```
//!
//! With huge pages, even free slots are writable, because the system makes huge pages only of
//! accessible memory.
//!
//! We normally return a huge page to the system only when no part of it is used or retained. Until
//! then, the free parts of the huge page are still backed by memory and may contain old data. A
//! trim returns the memory of free parts immediately, although this splits the huge page into small
//! pages.

use core::ops::Range;

use super::range::ReservedRange;
use crate::{
    HugePages,
    huge_pages::HUGE_PAGE,
    pages::{self, Access},
};

impl ReservedRange {
    /// Returns the access that a slot has while nothing uses it.
    ///
    /// With huge pages, the whole range is writable, even its free slots. When a process forks, the
    /// system may check whether it has enough memory for all writable pages. A fork could then
    /// fail, although most of the range is not in use. We therefore ask the system not to count the
    /// range in this check.
    pub(super) fn access_when_free(huge: HugePages) -> Access {
        if huge.is_on() { Access::ReadWriteUnchecked } else { Access::Reserved }
    }

    /// Sets whether the range uses huge pages. If the system refuses, the range does not use them.
    pub(super) fn use_huge_pages(&mut self, huge: HugePages) {
        if huge.is_on() && !self.huge.is_on() {
            let start = self.start_of(0);
            let bytes = self.slots.len() * self.slot_size().bytes() + pages::page_size();
            // SAFETY: the range owns these mapped pages (invariant of `base`).
            if unsafe { pages::make_writable(start, bytes) }.is_err() {
                return;
            }
            // INVARIANT: all slots are writable now.
            self.slots.open(0..self.slots.len());
            // SAFETY: as above.
            unsafe { pages::advise_huge(start, bytes) };
        }
        self.huge = huge;
    }

    /// Marks a run of used slots as free. Returns to the system the huge pages that are now
    /// entirely free.
    ///
    /// # Safety
    ///
    /// The slots must be used, and nothing may use their memory afterwards.
    pub(super) unsafe fn release_huge(&mut self, run: Range<usize>) {
        let slot_pages = (self.slot_size().bytes() / pages::page_size()) as u32;
        self.extents.note(run.clone(), slot_pages, slot_pages, true);
        self.slots.release_stale(run.clone());
        let around = self.huge_page_start(run.start)..self.huge_page_end(run.end);
        let start = match self.slots.are_free(around.start..run.start) {
            true => around.start,
            false => self.huge_page_end(run.start),
        };
        let end = match self.slots.are_free(run.end..around.end) {
            true => around.end,
            false => self.huge_page_start(run.end),
        };
        if start < end {
            self.purge_free(start..end);
        }
    }

    /// Purges all free slots that may still have memory.
    pub(super) fn purge_left_over(&mut self) {
        let mut at = 0;
        while let Some(run) = self.slots.left_over(at) {
            at = run.end;
            self.purge_free(run);
        }
    }

    fn purge_free(&mut self, run: Range<usize>) {
        let bytes = run.len() * self.slot_size().bytes();
        // SAFETY: the range owns these mapped pages (invariant of `base`). The slots are free, so nothing
        // uses their memory.
        if unsafe { pages::purge(self.start_of(run.start), bytes) }.is_ok() {
            self.slots.clear_stale(run);
        }
    }

    /// Makes huge pages from the memory around `run`, as far as the system has any.
    pub(super) fn make_huge(&self, run: Range<usize>) {
        let around = self.huge_page_start(run.start)..self.huge_page_end(run.end);
        let bytes = around.len() * self.slot_size().bytes();
        if bytes.is_multiple_of(HUGE_PAGE) {
            // SAFETY: the range owns these mapped pages (invariant of `base`), which are writable.
            unsafe { pages::make_huge(self.start_of(around.start), bytes) };
        }
    }

    /// Returns the first slot of the huge page that contains slot `at`.
    fn huge_page_start(&self, at: usize) -> usize {
        let (slots, before) = self.huge_page_slots();
        ((at + before) / slots * slots).saturating_sub(before)
    }

    /// Returns the number after the last slot of the huge page that contains slot `at - 1`.
    fn huge_page_end(&self, at: usize) -> usize {
        let (slots, before) = self.huge_page_slots();
        ((at + before).next_multiple_of(slots) - before).min(self.slots.len())
    }

    /// Returns the number of slots in a huge page, and how many slots of the first one precede the
    /// range.
    fn huge_page_slots(&self) -> (usize, usize) {
        let slot = self.slot_size().bytes();
        let before = self.start_of(0).addr().get() % HUGE_PAGE / slot;
        ((HUGE_PAGE / slot).max(1), before)
    }
}

#[cfg(test)]
mod tests;
