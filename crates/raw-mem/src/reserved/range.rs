//! A reserved range of addresses, divided into slots of equal size.

use core::{
    num::NonZero,
    ops::{Range, RangeInclusive},
    ptr::NonNull,
    slice,
    time::Duration,
};

use super::{
    bits,
    slots::{BITMAPS, Slots},
};
use crate::{
    ArenaSize, OsCode,
    arena_source::{RESERVED_BITS, RESERVED_BYTES},
    demand::Demand,
    pages::{self, Access},
};

/// The size of the range in bytes.
const BYTES: usize = RESERVED_BYTES as usize;

/// The sizes of a slot in bytes that a range can have.
const SLOT_BYTES: RangeInclusive<usize> = 1 << 16..=1 << 30;

/// A range of addresses that no other mapping of the process can get.
pub(super) struct ReservedRange {
    /// # Invariant
    ///
    /// - The range owns the `BYTES` bytes from here. They are always mapped, and so is the page
    ///   behind them.
    /// - Slots that are used or retained are writable.
    base: NonNull<u8>,
    slot: ArenaSize,
    /// # Invariant
    ///
    /// A mapping of `bitmap_bytes(slot)` bytes, of which only `slots` has a reference.
    bitmaps: NonNull<u8>,
    pub(super) slots: Slots<'static>,
    /// How many slots large mappings need.
    pub(super) demand: Demand,
}

impl ReservedRange {
    /// Reserves a range with slots of the size `slot`, unless the address space is limited.
    pub(super) fn reserve(slot: ArenaSize, decay: Duration) -> Option<Self> {
        if !SLOT_BYTES.contains(&slot.bytes()) || address_space_is_limited() {
            return None;
        }
        let bytes = bitmap_bytes(slot);
        let bitmaps = pages::map(0, bytes, Access::ReadWrite).ok()?;
        let page = pages::page_size();
        let Ok(base) = pages::map_aligned(BYTES + page, slot.bytes(), Access::Reserved) else {
            // SAFETY: the pages were mapped above, and nothing uses them.
            let _ = unsafe { pages::unmap(bitmaps, bytes) };
            return None;
        };
        // SAFETY: the pages are zero and have room for the words. Only `slots` refers to them, and
        // it is replaced before they are unmapped.
        let words = unsafe { slice::from_raw_parts_mut(bitmaps.cast().as_ptr(), words_for(slot)) };
        let slots = Slots::new(words, BYTES / slot.bytes());
        // INVARIANT: the bytes and the page behind them were mapped above. Every slot is free.
        Some(Self { base, slot, bitmaps, slots, demand: Demand::new(decay) })
    }

    pub(super) fn base(&self) -> NonZero<usize> {
        self.base.addr()
    }

    pub(super) fn slot_size(&self) -> ArenaSize {
        self.slot
    }

    pub(super) fn contains(&self, address: usize) -> bool {
        address.wrapping_sub(self.base.addr().get()) >> RESERVED_BITS == 0
    }

    /// Returns how many slots `bytes` bytes need.
    pub(super) fn slots_for(&self, bytes: usize) -> usize {
        bytes.div_ceil(self.slot.bytes())
    }

    /// Returns the slots of the `bytes` bytes at `start`, which is the start of a slot.
    pub(super) fn run_of(&self, start: NonNull<u8>, bytes: usize) -> Range<usize> {
        let first = (start.addr().get() - self.base.addr().get()) / self.slot.bytes();
        first..first + self.slots_for(bytes)
    }

    /// Returns the start of slot `at`, which must be a slot of the range or the end of the last.
    pub(super) fn start_of(&self, at: usize) -> NonNull<u8> {
        debug_assert!(at <= BYTES / self.slot.bytes(), "slot {at} is outside of the range");
        // SAFETY: the slot lies in the range (invariant of `base`).
        unsafe { self.base.add(at * self.slot.bytes()) }
    }

    /// Takes the lowest slot that is not used.
    pub(super) fn map_arena(&mut self) -> Option<NonNull<u8>> {
        let run = self.slots.find_one()?;
        self.take(run.clone()).ok()?;
        Some(self.start_of(run.start))
    }

    /// Takes back a slot.
    ///
    /// # Safety
    ///
    /// `arena` must have been returned by [`map_arena`](Self::map_arena), and nothing may use it
    /// afterwards.
    pub(super) unsafe fn unmap_arena(&mut self, arena: NonNull<u8>) {
        let run = self.run_of(arena, self.slot.bytes());
        // SAFETY: the slot is used, and nothing uses its memory (contract of `unmap_arena`).
        unsafe { self.release(run) };
    }

    /// Makes a run of free and retained slots writable, and marks it as used.
    ///
    /// Returns the number of slots that were retained.
    pub(super) fn take(&mut self, run: Range<usize>) -> Result<usize, OsCode> {
        let missing = self.slots.free_part(run.clone());
        if !missing.is_empty() {
            let bytes = missing.len() * self.slot.bytes();
            // SAFETY: the range owns these mapped pages (invariant of `base`).
            unsafe { pages::make_writable(self.start_of(missing.start), bytes) }?;
        }
        // INVARIANT: the retained slots of the run are writable already.
        Ok(self.slots.take(run))
    }

    /// Returns the memory of a run of used slots to the system, and makes the slots free.
    ///
    /// If the system refuses, for example because the process has too many mappings, the slots are
    /// retained instead.
    ///
    /// # Safety
    ///
    /// The slots must be used, and nothing may use their memory afterwards.
    pub(super) unsafe fn release(&mut self, run: Range<usize>) {
        let (start, bytes) = (self.start_of(run.start), run.len() * self.slot.bytes());
        // SAFETY: the range owns these pages (invariant of `base`), and nothing uses them.
        if unsafe { pages::withdraw(start, bytes) }.is_ok() {
            self.slots.release(run);
            return;
        }
        // SAFETY: as above.
        match unsafe { pages::purge(start, bytes) } {
            // A page may not be mapped, so we must not use the slots again.
            Err(OsCode(libc::ENOMEM)) => {}
            _ => self.slots.retain(run),
        }
    }

    /// Releases as many retained slots as the recent demand does not justify.
    #[inline]
    pub(super) fn release_excess(&mut self) {
        let allowed = self.demand.allowed();
        if self.slots.retained_count() > allowed {
            self.release_retained(allowed);
        }
    }

    /// Releases all retained slots.
    pub(super) fn trim(&mut self) {
        self.release_retained(0);
    }

    /// Releases the highest retained slots until at most `most` are left.
    fn release_retained(&mut self, most: usize) {
        let mut end = usize::MAX;
        loop {
            let excess = self.slots.retained_count().saturating_sub(most);
            let Some(run) = self.slots.take_last_retained(end, excess) else { return };
            end = run.start;
            self.demand.give_back(run.len());
            // SAFETY: the slots were retained, so nothing uses their memory.
            unsafe { self.release(run) };
        }
    }
}

impl Drop for ReservedRange {
    /// Unmaps the range if no slot is used. Otherwise only the retained slots lose their memory.
    fn drop(&mut self) {
        self.trim();
        if !self.slots.is_unused() {
            return;
        }
        self.slots = Slots::new(&mut [], 0);
        // SAFETY: the range owns the bitmaps, to which nothing refers any more.
        let _ = unsafe { pages::unmap(self.bitmaps, bitmap_bytes(self.slot)) };
        // SAFETY: the range owns these pages (invariant of `base`), and no slot is used.
        let _ = unsafe { pages::unmap(self.base, BYTES + pages::page_size()) };
    }
}

fn words_for(slot: ArenaSize) -> usize {
    BITMAPS * bits::words_for(BYTES / slot.bytes())
}

/// Returns the size of the mapping of the bitmaps in bytes.
fn bitmap_bytes(slot: ArenaSize) -> usize {
    (words_for(slot) * size_of::<usize>()).next_multiple_of(pages::page_size())
}

/// Returns true if a limit counts reserved addresses, so that a reservation would use it up.
fn address_space_is_limited() -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is valid for writes of an `rlimit`.
    let outcome = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) };
    outcome != 0 || limit.rlim_cur != libc::RLIM_INFINITY
}

#[cfg(test)]
mod tests;
