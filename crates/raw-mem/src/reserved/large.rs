//! Large mappings, which are runs of adjacent slots.
//!
//! A slot is a part of the reserved range that is as large as an arena. A large mapping occupies
//! whole slots, all of which are writable. Its *tail* consists of the pages between the requested
//! bytes and the end of its last slot. Nothing touches these pages, so they use memory only if an
//! earlier mapping at the same addresses has touched them. We return this memory to the system,
//! except with huge pages or while the tails of all mappings together are small.

use core::{ops::Range, ptr, ptr::NonNull};

use super::range::ReservedRange;
use crate::{
    LargeMapping,
    pages::{
        self,
        relocation::{Relocation, relocate},
    },
};

/// Tails are purged if their total size exceeds one part in this many of the memory in use.
const PART_OF_TAILS: usize = 128;

/// No tail is purged if the total size of all tails is at most this many bytes.
const MOST_TAILS: usize = 4 << 20;

impl ReservedRange {
    /// Takes a run of slots for `bytes` bytes. Prefers retained slots.
    pub(super) fn map_large(&mut self, bytes: usize) -> Option<LargeMapping> {
        let bytes = pages::whole_pages(bytes)?;
        let count = self.slots_for(bytes);
        if let Some(run) = self.slots.take_retained(count) {
            self.demand.request(count, count);
            self.purge_tail(run.clone(), bytes);
            return Some(LargeMapping { start: self.start_of(run.start), bytes, is_zeroed: false });
        }
        let run = self.find_or_add_run(count)?;
        let is_zeroed = !self.slots.has_stale(run.clone());
        let start = self.start_of(run.start);
        let reused = self.take(run.clone()).ok()?;
        self.demand.request(count, reused);
        self.purge_tail(run, bytes);
        Some(LargeMapping { start, bytes, is_zeroed })
    }

    /// Purges the tail of a new mapping of `bytes` bytes, if an earlier mapping has touched it.
    ///
    /// Does nothing as long as the tails of all mappings together are small.
    fn purge_tail(&mut self, run: Range<usize>, bytes: usize) {
        let page = pages::page_size();
        let tail = self.tail_of(&run, bytes);
        let in_use = self.demand.in_use() * (self.slot_size().bytes() / page);
        let most = (in_use / PART_OF_TAILS).max(MOST_TAILS / page);
        if self.tails + tail <= most || self.huge.is_on() {
            self.tails += tail;
            return;
        }
        let last = run.end - 1;
        let tail = self.extents.cut(last, self.pages_in_last(&run, bytes));
        // SAFETY: the tail lies in the last slot.
        let start = unsafe { self.start_of(last).add(tail.start as usize * page) };
        // SAFETY: the range owns these mapped pages, which lie after the mapping.
        if unsafe { pages::purge(start, tail.len() * page) }.is_err() {
            self.extents.note(last..run.end, 0, tail.end, true);
            self.tails += tail.len();
        }
    }

    /// Returns the number of pages after a mapping that may still be backed by memory.
    fn tail_of(&self, run: &Range<usize>, bytes: usize) -> usize {
        let last = run.end - 1;
        match self.slots.has_stale(last..run.end) {
            true => self.extents.tail(last, self.pages_in_last(run, bytes)),
            false => 0,
        }
    }

    /// Returns the number of pages that a mapping of `bytes` bytes needs in the last slot of `run`.
    fn pages_in_last(&self, run: &Range<usize>, bytes: usize) -> u32 {
        ((bytes - (run.len() - 1) * self.slot_size().bytes()) / pages::page_size()) as u32
    }

    /// Unmaps a large mapping. Its slots are retained until the excess is released.
    ///
    /// # Safety
    ///
    /// `start` and `bytes` must describe a large mapping of this range, and nothing may use it
    /// afterwards.
    pub(super) unsafe fn unmap_large(&mut self, start: NonNull<u8>, bytes: usize) {
        let run = self.run_of(start, bytes);
        let is_stale = self.slots.has_stale(run.end - 1..run.end);
        let slot_pages = (self.slot_size().bytes() / pages::page_size()) as u32;
        let pages = self.pages_in_last(&run, bytes);
        self.tails = self.tails.saturating_sub(self.tail_of(&run, bytes));
        self.extents.note(run.clone(), slot_pages, pages, is_stale);
        self.demand.vacate(run.len());
        self.slots.retain(run);
    }

    /// Resizes a large mapping. If this fails, returns `None` and leaves the mapping unchanged.
    ///
    /// # Safety
    ///
    /// - `start` must be the address of a large mapping in the range of addresses that `self` has
    ///   reserved, and `old` must be the size of this mapping in bytes.
    /// - If the call succeeds, only the mapping that it returns may be used afterwards.
    pub(super) unsafe fn resize_large(
        &mut self,
        start: NonNull<u8>,
        old: usize,
        new: usize,
    ) -> Option<LargeMapping> {
        let bytes = pages::whole_pages(new)?;
        if bytes < old {
            // SAFETY: nothing uses the bytes after the first `bytes` (contract of `resize_large`).
            unsafe { self.shrink(start, old, bytes) };
            return Some(LargeMapping { start, bytes, is_zeroed: true });
        }
        // SAFETY: the contract is the same.
        let moved = |range: &mut Self| unsafe { range.move_and_grow(start, old, bytes) };
        self.grow_in_place(start, old, bytes).or_else(|| moved(self))
    }

    /// Returns the memory between `bytes` and `old` to the system.
    ///
    /// # Safety
    ///
    /// `start` and `old` must describe a large mapping of this range. Nothing may use the bytes
    /// after the first `bytes`.
    unsafe fn shrink(&mut self, start: NonNull<u8>, old: usize, bytes: usize) {
        let mut behind = self.run_of(start, old);
        behind.start += self.slots_for(bytes);
        let rest = old.min(self.slots_for(bytes) * self.slot_size().bytes()) - bytes;
        if rest > 0 {
            // SAFETY: the mapping is longer than `bytes`.
            let tail = unsafe { start.add(bytes) };
            // SAFETY: these pages of the mapping are no longer used (contract of `shrink`).
            if self.huge.is_on() || unsafe { pages::purge(tail, rest) }.is_err() {
                self.slots.mark_stale(behind.start - 1..behind.start);
            }
        }
        if !behind.is_empty() {
            self.demand.vacate(behind.len());
            self.demand.give_back(behind.len());
            // SAFETY: the slots belong to the mapping, and nothing uses them.
            unsafe { self.release(behind) };
        }
    }

    /// Extends a large mapping into the slots after it, if none of the slots that it needs is used.
    fn grow_in_place(
        &mut self,
        start: NonNull<u8>,
        old: usize,
        bytes: usize,
    ) -> Option<LargeMapping> {
        let run = self.run_of(start, old);
        let behind = run.end..run.start + self.slots_for(bytes);
        let len = self.slots.len();
        if !self.slots.can_take(behind.start..behind.end.min(len)) {
            return None;
        }
        self.add_slots(behind.end.saturating_sub(len))?;
        let is_zeroed = !self.slots.has_stale(run.end - 1..behind.end);
        let reused = self.take(behind.clone()).ok()?;
        self.demand.request(behind.len(), reused);
        Some(LargeMapping { start, bytes, is_zeroed })
    }

    /// Moves a large mapping to a longer run of slots.
    ///
    /// # Safety
    ///
    /// The contract of [`resize_large`](Self::resize_large) must hold.
    unsafe fn move_and_grow(
        &mut self,
        start: NonNull<u8>,
        old: usize,
        bytes: usize,
    ) -> Option<LargeMapping> {
        let target = self.find_or_add_run(self.slots_for(bytes))?;
        let is_zeroed = !self.slots.has_stale(target.clone());
        let new = self.start_of(target.start);
        let reused = self.take(target.clone()).ok()?;
        let slot = self.slot_size().bytes();
        // SAFETY: both runs are mapped and writable, and no slot is in both. The range always keeps
        // a page mapped after each run (invariant of `base`).
        if !unsafe { move_contents(start, new, old, slot) } {
            // We never use the target's slots again, because they may no longer be mapped.
            return None;
        }
        let left = self.run_of(start, old);
        self.demand.vacate(left.len());
        self.demand.request(target.len(), reused);
        // SAFETY: the contents have moved, so nothing uses the old slots.
        unsafe { self.release(left) };
        Some(LargeMapping { start: new, bytes, is_zeroed })
    }
}

/// Moves `bytes` bytes from the run of slots at `old` to the run at `new`.
///
/// Pages are moved without copying if the system can do so. If the move fails, the old run is
/// unchanged.
///
/// # Safety
///
/// - The run of slots that begins at `old` and the run that begins at `new` must not overlap.
/// - Both runs must consist of whole pages, which the caller owns and which are writable.
/// - The page after the old run must be mapped.
/// - Nothing else may use the two runs during the call.
unsafe fn move_contents(old: NonNull<u8>, new: NonNull<u8>, bytes: usize, slot: usize) -> bool {
    let mut done = 0;
    let mut piece = bytes;
    while done < bytes {
        // SAFETY: `done` is less than the length of both ranges.
        let (from, to) = unsafe { (old.add(done), new.add(done)) };
        // SAFETY: the caller owns these parts of both ranges (contract of `move_contents`).
        match unsafe { relocate(from, to, piece) } {
            Relocation::Moved => {}
            Relocation::InParts if piece > slot => {
                piece = piece.div_ceil(slot) / 2 * slot;
                continue;
            }
            // SAFETY: both parts are mapped, writable and `piece` bytes long.
            Relocation::InParts | Relocation::Refused => unsafe {
                ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), piece);
            },
            Relocation::TargetLost => {
                // SAFETY: the first `done` bytes of both ranges are still mapped.
                unsafe { ptr::copy_nonoverlapping(new.as_ptr(), old.as_ptr(), done) };
                return false;
            }
        }
        done += piece;
        piece = bytes - done;
    }
    true
}

#[cfg(test)]
mod tests;
