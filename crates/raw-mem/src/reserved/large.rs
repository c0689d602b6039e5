//! Large mappings, which are runs of adjacent slots.
//!
//! A slot is a part of the reserved range that is as large as an arena. A large mapping occupies
//! whole slots, all of which are writable. Its *tail* consists of the pages between the requested
//! bytes and the end of its last slot. Nothing touches these pages, so they use memory only if an
//! earlier mapping at the same addresses has touched them. We return this memory to the system,
//! except with huge pages or while the tails of all mappings together are small.

use core::{ops::Range, ptr, ptr::NonNull};

use super::{range::ReservedRange, slots::Wants};
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
            self.note_tail(run.clone(), bytes);
            return Some(LargeMapping { start: self.start_of(run.start), bytes, is_zeroed: false });
        }
        let (run, wants) = self.find_for_mapping(count)?;
        let reused = self.take(run.clone()).ok()?;
        let Some(moved) = self.fill_from_retained(run.clone(), wants) else {
            // The system cannot move memory, so the next attempt does not try.
            return self.map_large(bytes);
        };
        self.demand.request(count, reused + moved);
        let is_zeroed = !self.slots.has_stale(run.clone());
        self.note_tail(run.clone(), bytes);
        Some(LargeMapping { start: self.start_of(run.start), bytes, is_zeroed })
    }

    /// Finds `count` adjacent slots for a new mapping, and decides whether the mapping reuses the
    /// memory of retained slots.
    fn find_for_mapping(&mut self, count: usize) -> Option<(Range<usize>, Wants)> {
        if self.wants_for(count) == Wants::Retained {
            let run = self.find_or_add_run(count, Wants::Retained)?;
            let covers_half = 2 * self.slots.retained_in(run.clone()) >= count;
            if covers_half || self.can_move_memory() {
                return Some((run, Wants::Retained));
            }
        }
        let run = self.find_or_add_run(count, Wants::Fresh)?;
        // With huge pages, free slots may keep their memory, so a stale slot is no exception.
        if self.huge.is_on() || !self.slots.has_stale(run.clone()) {
            return Some((run, Wants::Fresh));
        }
        let added = self.add_slots(self.slots.missing_fresh_at_end(count));
        let fresh = added.and_then(|()| self.find_or_add_run(count, Wants::Fresh));
        Some((fresh.unwrap_or(run), Wants::Fresh))
    }

    /// Returns whether a run of `count` slots should reuse the memory of retained slots.
    ///
    /// We reuse retained memory only if there is enough of it for at least half of the run. A
    /// mapping that reuses memory may contain old data, so it must be cleared completely if the
    /// program requests zeroed memory. The whole mapping is then backed by memory, even the parts
    /// that the program never uses.
    fn wants_for(&self, count: usize) -> Wants {
        if 2 * self.slots.retained_count() >= count { Wants::Retained } else { Wants::Fresh }
    }

    fn can_move_memory(&self) -> bool {
        self.can_move && !self.huge.is_on() && self.slots.piece_count() < self.most_pieces
    }

    /// Moves the memory of retained slots to the slots of `run` that have no memory yet.
    ///
    /// The function moves whole pages and copies no data. With [`Wants::Fresh`], it does nothing.
    ///
    /// The system moves a page by remapping it, which is much faster than clearing a new page. On
    /// an AMD EPYC in a virtual machine, moving 1 MiB took 70 ns per page, and the first write to a
    /// new page took 2,400 ns.
    ///
    /// `run` must be in use. Returns the number of slots whose memory has moved.
    ///
    /// If the system call that moves memory fails, the slots of `run` to which it should move the
    /// memory may no longer be mapped. We never use these slots again, so they stay marked as used.
    /// The function then releases the other slots of `run` and returns `None`.
    fn fill_from_retained(&mut self, run: Range<usize>, wants: Wants) -> Option<usize> {
        let (mut at, mut end, mut most, mut moved) = (run.start, usize::MAX, run.len(), 0);
        while wants == Wants::Retained && self.can_move_memory() {
            let fresh = self.slots.first_fresh(at..run.end);
            let Some(from) = self.slots.take_last_retained(end, fresh.len().min(most)) else {
                break;
            };
            let to = fresh.start..fresh.start + from.len();
            let (old, new) = (self.start_of(from.start), self.start_of(to.start));
            // SAFETY: both runs are mapped and writable, no slot is in both, and nothing uses them.
            // The page after each run is mapped, or belongs to a lost slot (invariant of `base`).
            match unsafe { relocate(old, new, from.len() * self.slot_size().bytes()) } {
                Relocation::Moved => {
                    self.extents.copy(from.clone(), to.start);
                    self.slots.mark_stale(to.clone());
                    self.slots.note_moved(from.clone(), to.start);
                    (at, end, most) = (to.end, from.start, run.len());
                    moved += to.len();
                    // SAFETY: the slots were retained, so nothing uses their memory.
                    unsafe { self.release(from) };
                }
                Relocation::InParts if from.len() > 1 => {
                    most = from.len() / 2;
                    self.slots.retain(from);
                }
                Relocation::InParts => {
                    // This slot stays where it is.
                    (end, most) = (from.start, run.len());
                    self.slots.retain(from);
                }
                Relocation::Refused => {
                    self.slots.retain(from);
                    self.can_move = false;
                }
                Relocation::TargetLost => {
                    self.slots.retain(from);
                    self.can_move = false;
                    for kept in [run.start..to.start, to.end..run.end] {
                        if !kept.is_empty() {
                            // SAFETY: the slots are in use, and nothing uses their memory yet.
                            unsafe { self.release(kept) };
                        }
                    }
                    return None;
                }
            }
        }
        Some(moved)
    }

    /// Adds the tail of a mapping of `bytes` bytes to the total size of all tails.
    ///
    /// The tail is the unused rest of the mapping's last slot. We count only the pages that an
    /// earlier mapping has touched, because only these may be backed by memory. If the total would
    /// become too large, the function purges these pages instead.
    fn note_tail(&mut self, run: Range<usize>, bytes: usize) {
        let page = pages::page_size();
        let tail = self.tail_of(&run, bytes);
        let in_use = self.demand.in_use().saturating_mul(self.slot_size().bytes() / page);
        let most = (in_use / PART_OF_TAILS).max(MOST_TAILS / page);
        if tail == 0 || self.tails + tail <= most || self.huge.is_on() {
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

    /// Subtracts the tail of a mapping of `bytes` bytes from the total size of all tails.
    fn forget_tail(&mut self, run: &Range<usize>, bytes: usize) {
        self.tails = self.tails.saturating_sub(self.tail_of(run, bytes));
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
        self.forget_tail(&run, bytes);
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
        let before = self.run_of(start, old);
        let run = before.start..before.start + self.slots_for(bytes);
        let behind = run.end..before.end;
        self.forget_tail(&before, old);
        let in_last = old.min(run.len() * self.slot_size().bytes());
        let (last, first) = (run.end - 1..run.end, self.pages_in_last(&run, bytes));
        let is_stale = self.slots.has_stale(last.clone());
        self.extents.note(last.clone(), 0, self.pages_in_last(&run, in_last), is_stale);
        let tail = self.extents.cut(last.start, first);
        // SAFETY: the tail lies in the last slot.
        let start_of_tail =
            unsafe { self.start_of(last.start).add(first as usize * pages::page_size()) };
        let bytes_of_tail = tail.len() * pages::page_size();
        // SAFETY: the pages belong to the mapping or lie after it, and are no longer used
        // (contract).
        let purge = || unsafe { pages::purge(start_of_tail, bytes_of_tail) };
        if bytes_of_tail > 0 && (self.huge.is_on() || purge().is_err()) {
            self.extents.note(last.clone(), 0, tail.end, true);
            self.slots.mark_stale(last);
        }
        self.tails += self.tail_of(&run, bytes);
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
        let wants = self.wants_for(behind.len());
        let reused = self.take(behind.clone()).ok()?;
        let moved = self.fill_from_retained(behind.clone(), wants)?;
        self.demand.request(behind.len(), reused + moved);
        let is_zeroed = !self.slots.has_stale(run.end - 1..behind.end);
        self.forget_tail(&run, old);
        self.note_tail(run.start..behind.end, bytes);
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
        if !self.can_move {
            // Each failed attempt would lose slots. The caller copies the contents instead.
            return None;
        }
        // The contents will replace the old memory of these slots, so free slots are best.
        let target = self.find_or_add_run(self.slots_for(bytes), Wants::Fresh)?;
        let left = self.run_of(start, old);
        let border = target.start + left.len();
        let (moved, added) = (target.start..border, border..target.end);
        let reused = self.slots.retained_in(added.clone());
        let wants = self.wants_for(added.len());
        self.take(target.clone()).ok()?;
        let Some(filled) = self.fill_from_retained(added.clone(), wants) else {
            // SAFETY: the slots are in use, and nothing uses their memory yet.
            unsafe { self.release(moved) };
            return None;
        };
        let is_zeroed = !self.slots.has_stale(target.clone());
        let new = self.start_of(target.start);
        let slot = self.slot_size().bytes();
        // SAFETY: both runs are mapped and writable, and no slot is in both. The page after each
        // run is mapped, or belongs to a lost slot (invariant of `base`).
        if !unsafe { move_contents(start, new, old, slot) } {
            // We never use the slots of `moved` again, because they may no longer be mapped.
            self.can_move = false;
            if !added.is_empty() {
                // SAFETY: the slots are in use, and nothing uses their memory yet.
                unsafe { self.release(added) };
            }
            return None;
        }
        self.slots.note_moved(left.clone(), target.start);
        self.demand.vacate(left.len());
        self.demand.request(target.len(), reused + filled + left.len());
        self.forget_tail(&left, old);
        self.note_tail(target, bytes);
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
/// - The run of slots that begins at `old` and the run of slots that begins at `new` must not
///   overlap.
/// - Both runs must consist of whole pages. The caller must own these pages, and they must be
///   writable.
/// - If the page after the old run is not mapped, nothing may ever use its address, because the
///   move may map a page there.
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
                if done > 0 {
                    // SAFETY: these pages are mapped, and nothing will use them again.
                    let _ = unsafe { pages::purge(new, done) };
                }
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
