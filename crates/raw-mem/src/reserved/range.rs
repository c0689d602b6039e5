//! A reserved range of addresses, divided into slots of equal size.
//!
//! The range starts small, because reserved addresses count against the process's limit on address
//! space. When the range has no room for a request, we extend it at its end. The addresses after
//! the end are usually free, because the range is far away from all other mappings.

use core::{
    ops::{Range, RangeInclusive},
    ptr::NonNull,
    slice,
    time::Duration,
};

use super::{
    bits,
    extents::Extents,
    slots::{BITMAPS, Slots, Wants},
};
use crate::{
    ArenaSize, Contents, HugePages, OsCode, align_down,
    arena_source::RESERVED_BYTES,
    demand::Demand,
    huge_pages::HUGE_PAGE,
    pages::{self, Access},
};

/// The largest size of the range in bytes.
const BYTES: usize = RESERVED_BYTES as usize;

/// The number of bytes that are reserved at first.
const FIRST_BYTES: usize = 16 << 20;

/// The largest number of pieces of memory that have moved to other slots and are still in use or
/// retained.
///
/// Linux keeps each piece as a mapping of its own, and allows a process only 65,530 mappings by
/// default (`vm.max_map_count`).
const MOST_PIECES: usize = 1024;

/// The largest number of runs of inaccessible slots.
///
/// Linux keeps each run of adjacent inaccessible slots as one mapping, and the writable memory
/// between two runs as another. It limits the number of mappings (see [`MOST_PIECES`]).
const MOST_CLOSED_RUNS: usize = 8192;

/// The sizes in bytes that a slot of a range may have.
const SLOT_BYTES: RangeInclusive<usize> = 1 << 16..=1 << 30;

/// The addresses at which a range may start.
///
/// Nothing else in the process is likely to use the addresses in `STARTS`, because the system
/// places a mapping there only if the process asks for such an address. Programs, their heaps,
/// shared libraries and stacks lie above these addresses, and the shadow memory of sanitizers lies
/// below them.
const STARTS: Range<usize> = 0x1100_0000_0000..0x5000_0000_0000;

/// A range of addresses that is reserved for this source.
pub(super) struct ReservedRange {
    /// # Invariant
    ///
    /// - The first slot begins at `base`, and each slot is as large as an arena.
    /// - This source owns all slots. All slots and one page after the last slot are always mapped,
    ///   except lost slots. A slot is lost if a system call fails and may have unmapped the slot. It
    ///   then stays marked as used.
    /// - A slot that is in use is writable, and so is a slot whose memory is retained for a later
    ///   request. All other slots are called free. A free slot is either closed, which means that
    ///   it is inaccessible, or open, which means that it is writable. All free slots are open if
    ///   the range uses huge pages, because the system makes huge pages only of accessible memory.
    base: NonNull<u8>,
    slot: ArenaSize,
    /// The binary logarithm of the size of a slot.
    slot_bits: u32,
    /// # Invariant
    ///
    /// A mapping of `record_bytes(slot)` bytes, to which only `slots` and `extents` refer.
    records: NonNull<u8>,
    pub(super) slots: Slots<'static>,
    /// The largest number of slots to which the range may grow.
    most_slots: usize,
    pub(super) extents: Extents<'static>,
    /// The approximate number of pages after mappings in use that may be backed by memory.
    pub(super) tails: usize,
    /// The demand for slots of large mappings.
    pub(super) demand: Demand,
    /// The number of slots that users of the source may retain in unused large mappings.
    by_users: usize,
    pub(super) huge: HugePages,
    /// True until the system fails to move the memory of retained slots.
    pub(super) can_move: bool,
    /// If moved memory is in this many pieces, no memory of retained slots moves.
    pub(super) most_pieces: usize,
    /// If there are this many runs of closed slots, we close no slot that would begin another run.
    pub(super) most_closed_runs: usize,
}

impl ReservedRange {
    /// Reserves a range with slots of the size `slot`, which never grows beyond `most` bytes.
    pub(super) fn reserve(
        slot: ArenaSize,
        most: usize,
        huge: HugePages,
        decay: Duration,
    ) -> Option<Self> {
        if !SLOT_BYTES.contains(&slot.bytes()) || most < slot.bytes() {
            return None;
        }
        let bytes = record_bytes(slot);
        let records = pages::map(0, bytes, Access::ReadWrite).ok()?;
        let first = (FIRST_BYTES.min(most) / slot.bytes()).max(1);
        let align = if huge.is_on() { slot.bytes().max(HUGE_PAGE) } else { slot.bytes() };
        let starts = random_starts(records.addr().get(), align);
        let access = Self::access_when_free(huge);
        let reserve = |count| reserve_slots(starts, count, slot, align, access);
        let Some((base, count)) = reserve(first).or_else(|_| reserve(1)).ok() else {
            // SAFETY: the pages were mapped above, and nothing uses them.
            let _ = unsafe { pages::unmap(records, bytes) };
            return None;
        };
        // SAFETY: the pages are zero and have room for the words. Only `slots` refers to them, and
        // it is replaced before they are unmapped.
        let words = unsafe { slice::from_raw_parts_mut(records.cast().as_ptr(), words_for(slot)) };
        let described = BYTES / slot.bytes();
        let mut slots = Slots::new(words, described);
        slots.add(count);
        // SAFETY: the pages also have room for the extents, after the words.
        let extents = unsafe { records.cast::<usize>().add(words_for(slot)).cast() };
        // SAFETY: as above. Only `extents` refers to them, and it is replaced before the unmapping.
        let extents =
            Extents::new(unsafe { slice::from_raw_parts_mut(extents.as_ptr(), described) });
        // INVARIANT: the slots and the page after them were mapped above. Every slot is free.
        let slot_bits = slot.bytes().ilog2();
        let most_slots = most / slot.bytes();
        let demand = Demand::new(decay, 0);
        let mut range = Self {
            base,
            slot,
            slot_bits,
            records,
            slots,
            most_slots,
            extents,
            tails: 0,
            demand,
            by_users: 0,
            huge: HugePages::Off,
            can_move: true,
            most_pieces: MOST_PIECES,
            most_closed_runs: MOST_CLOSED_RUNS,
        };
        range.use_huge_pages(huge);
        Some(range)
    }

    /// Returns the addresses of all slots up to the highest one that was ever used.
    pub(super) fn addresses(&self) -> Range<usize> {
        let base = self.base.addr().get();
        base..base + self.slots.top() * self.slot.bytes()
    }

    pub(super) fn slot_size(&self) -> ArenaSize {
        self.slot
    }

    /// Returns true if `address` lies in a slot that was ever used.
    #[inline]
    pub(super) fn contains(&self, address: usize) -> bool {
        let distance = address.wrapping_sub(self.base.addr().get());
        distance < self.slots.top() * self.slot.bytes()
    }

    /// Returns how many slots `bytes` bytes need.
    #[inline]
    pub(super) fn slots_for(&self, bytes: usize) -> usize {
        // A shift is faster than a division.
        (bytes >> self.slot_bits) + usize::from(bytes & (self.slot.bytes() - 1) != 0)
    }

    /// Returns the slots of the `bytes` bytes at `start`, which is the start of a slot.
    pub(super) fn run_of(&self, start: NonNull<u8>, bytes: usize) -> Range<usize> {
        let first = (start.addr().get() - self.base.addr().get()) >> self.slot_bits;
        first..first + self.slots_for(bytes)
    }

    /// Returns the start of slot `at`, which must be a slot of the range or the end of the last
    /// slot.
    pub(super) fn start_of(&self, at: usize) -> NonNull<u8> {
        debug_assert!(at <= self.slots.len(), "slot {at} is outside of the range");
        // SAFETY: the slot lies in the range (invariant of `base`).
        unsafe { self.base.add(at * self.slot.bytes()) }
    }

    /// Takes the lowest slot that is not used.
    pub(super) fn map_arena(&mut self) -> Option<(NonNull<u8>, Contents)> {
        let run = match self.slots.find_one() {
            Some(run) => run,
            None => {
                self.add_slots(1)?;
                self.slots.find_one()?
            }
        };
        let is_stale = self.slots.has_stale(run.clone());
        self.take(run.clone()).ok()?;
        if self.huge == HugePages::Explicit {
            self.make_huge(run.clone());
        }
        let contents = if is_stale { Contents::Unknown } else { Contents::Zero };
        Some((self.start_of(run.start), contents))
    }

    /// Returns `count` adjacent slots that are not used. Adds slots to the range if necessary.
    pub(super) fn find_or_add_run(&mut self, count: usize, wants: Wants) -> Option<Range<usize>> {
        self.slots.find_run(count, wants).or_else(|| {
            self.add_slots(self.slots.missing_at_end(count))?;
            self.slots.find_run(count, wants)
        })
    }

    /// Adds at least `needed` slots at the end of the range. Returns `None` if that is impossible.
    ///
    /// If the system allows it, the range grows by at least half its size, so it seldom has to
    /// grow.
    pub(super) fn add_slots(&mut self, needed: usize) -> Option<()> {
        if needed == 0 {
            return Some(());
        }
        let allowed = self.most_slots.saturating_sub(self.slots.len());
        let most = self.slots.addable().min(allowed);
        let unit = if self.huge.is_on() { (HUGE_PAGE / self.slot.bytes()).max(1) } else { 1 };
        let ample = needed.max(self.slots.len() / 2).next_multiple_of(unit).min(most);
        if needed > most {
            return None;
        }
        self.map_slots(ample)
            .or_else(|error| match ample > needed {
                true => self.map_slots(needed),
                false => Err(error),
            })
            .ok()
    }

    /// Keeps the range from growing beyond `bytes` bytes.
    pub(super) fn limit_to(&mut self, bytes: usize) {
        self.most_slots = bytes / self.slot.bytes();
    }

    fn map_slots(&mut self, count: usize) -> Result<(), OsCode> {
        let end = self.start_of(self.slots.len());
        // SAFETY: the page after the last slot is mapped (invariant of `base`).
        let behind = unsafe { end.add(pages::page_size()) };
        let bytes = count * self.slot.bytes();
        pages::map_at(behind, bytes, Self::access_when_free(self.huge))?;
        // INVARIANT: the added slots and the page after them are mapped, and writable with huge
        // pages.
        let before = self.slots.len();
        self.slots.add(count);
        if self.huge.is_on() {
            self.slots.open(before..before + count);
            // SAFETY: the pages were mapped above.
            unsafe { pages::advise_huge(behind, bytes) };
        }
        Ok(())
    }

    /// Unmaps the slots that were never used. Returns true if there were any.
    fn unmap_unused(&mut self) -> bool {
        let (top, page) = (self.slots.top(), pages::page_size());
        let bytes = (self.slots.len() - top) * self.slot.bytes();
        if bytes == 0 {
            return false;
        }
        // SAFETY: the range owns these slots and the page after them (invariant of `base`).
        let behind = unsafe { self.start_of(top).add(page) };
        // SAFETY: the slots were never used, and the page is not used. One page is left.
        let unmapped = unsafe { pages::unmap(behind, bytes) }.is_ok();
        if unmapped {
            // INVARIANT: the page after the last used slot is still mapped.
            self.slots.remove_unused();
        }
        unmapped
    }

    /// Unmaps the free slots at the end. First calls `publish` with the remaining addresses.
    pub(super) fn give_back_end(&mut self, publish: &mut dyn FnMut(Range<usize>)) {
        if self.slots.forget_free_end() {
            publish(self.addresses());
        }
        self.unmap_unused();
    }

    /// Unmaps an arena, which frees its slot.
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
        let closed = self.slots.closed_part(run.clone());
        if !closed.is_empty() {
            let bytes = closed.len() * self.slot.bytes();
            // SAFETY: the range owns these mapped pages (invariant of `base`).
            unsafe { pages::make_writable(self.start_of(closed.start), bytes) }?;
        }
        // INVARIANT: the other slots of the run are writable already.
        Ok(self.slots.take(run))
    }

    /// Returns the memory of a run of used slots to the system, and makes the slots free.
    ///
    /// The function normally closes the slots, which means that it makes them inaccessible. If
    /// adjacent free slots are still open, which means writable, it closes them too.
    ///
    /// Each run of adjacent closed slots is a mapping of its own. If closing the slots would lead
    /// to too many runs, the function leaves the released slots open. It also leaves them open if
    /// the system refuses to close them, for example because the process has too many mappings.
    ///
    /// If the system does not take back the memory, the slots are retained instead of freed.
    ///
    /// # Safety
    ///
    /// The slots must be used, and nothing may use their memory afterwards.
    pub(super) unsafe fn release(&mut self, run: Range<usize>) {
        if self.huge.is_on() {
            // SAFETY: the contract is the same.
            return unsafe { self.release_huge(run) };
        }
        let gap = self.slots.with_open_neighbours(run.clone());
        if self.slots.closed_runs_with(gap.clone()) > self.most_closed_runs {
            // SAFETY: the contract is the same.
            return unsafe { self.release_open(run.clone(), run) };
        }
        let (start, bytes) = (self.start_of(gap.start), gap.len() * self.slot.bytes());
        // SAFETY: the range owns these pages (invariant of `base`), and nothing uses them.
        if unsafe { pages::withdraw(start, bytes) }.is_ok() {
            self.slots.release(run);
            // INVARIANT: the slots are mapped and inaccessible.
            self.slots.close(gap);
            return;
        }
        // SAFETY: the contract is the same, and the other slots of `gap` are open.
        unsafe { self.release_open(run, gap) };
    }

    /// Purges the slots of `gap`, and makes the slots of `run`, a part of `gap`, free and open.
    ///
    /// The purge fails with `ENOMEM` if an earlier failed system call has left a page of `gap`
    /// unmapped. The function then marks all slots of `gap` as used, so that nothing uses them
    /// again. If the purge fails for another reason, the slots of `run` are retained.
    ///
    /// # Safety
    ///
    /// - The slots of `run` must be marked as used, and nothing may use their memory afterwards.
    /// - All other slots of `gap` must be open, which means free and writable.
    #[cold]
    unsafe fn release_open(&mut self, run: Range<usize>, gap: Range<usize>) {
        let (start, bytes) = (self.start_of(gap.start), gap.len() * self.slot.bytes());
        // SAFETY: the range owns these pages (invariant of `base`), and nothing uses them.
        match unsafe { pages::purge(start, bytes) } {
            Ok(()) => self.slots.release(run),
            // A page may no longer be mapped, so we must not use the slots again.
            Err(OsCode(libc::ENOMEM)) => self.slots.lose(gap),
            Err(_) => self.slots.retain(run),
        }
    }

    /// Releases the retained slots that exceed the recent demand.
    #[inline]
    pub(super) fn release_excess(&mut self) {
        let allowed = self.demand.allowed().saturating_sub(self.by_users);
        if self.slots.retained_count() > allowed {
            self.release_retained(allowed);
        }
    }

    /// Returns how many slots a user may retain. The user may retain `had` slots now, and wants to
    /// retain `want`.
    pub(super) fn retain_by_users(&mut self, had: usize, want: usize) -> usize {
        self.by_users = self.by_users.saturating_sub(had);
        self.demand.occupy(had);
        self.demand.vacate(want);
        let retained = self.by_users.saturating_add(self.slots.retained_count());
        let granted = want.min(self.demand.allowed().saturating_sub(retained));
        self.by_users += granted;
        // The user unmaps the other slots, so they count as in use until then.
        self.demand.occupy(want - granted);
        self.release_excess();
        granted
    }

    /// Lowers the number of slots that the users are assumed to retain to at most `slots`.
    pub(super) fn limit_users_to(&mut self, slots: usize) {
        self.by_users = self.by_users.min(slots);
    }

    /// Returns the total size in bytes of the unused slots that still hold memory.
    pub(super) fn retained_bytes(&self) -> usize {
        (self.slots.retained_count() + self.slots.left_over_count()) * self.slot.bytes()
    }

    /// Releases all retained slots, closes open ones, and unmaps the slots that were never used.
    ///
    /// Returns true if this has changed anything. Only then can it help to repeat a request that
    /// failed.
    pub(super) fn trim(&mut self) -> bool {
        let before = self.retained_bytes();
        self.release_retained(0);
        self.purge_left_over();
        let has_closed = self.close_open();
        let has_unmapped = self.unmap_unused();
        has_closed || has_unmapped || self.retained_bytes() < before
    }

    /// Closes open slots, unless there would be too many runs of closed slots. Returns true if it
    /// has closed any.
    fn close_open(&mut self) -> bool {
        let (mut at, mut has_closed) = (0, false);
        while let Some(run) = self.slots.next_open(at).filter(|_| !self.huge.is_on()) {
            at = run.end;
            if self.slots.closed_runs_with(run.clone()) <= self.most_closed_runs {
                self.slots.lose(run.clone());
                // SAFETY: the slots are now marked as used. They were free, so nothing uses their
                // memory.
                unsafe { self.release(run.clone()) };
                has_closed |= !self.slots.closed_part(run).is_empty();
            }
        }
        has_closed
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
    /// Unmaps the range if no slot is used. Otherwise, only releases the memory of unused slots.
    fn drop(&mut self) {
        self.trim();
        if !self.slots.is_unused() {
            return;
        }
        let bytes = self.slots.len() * self.slot.bytes() + pages::page_size();
        self.slots = Slots::new(&mut [], 0);
        self.extents = Extents::new(&mut []);
        // SAFETY: the range owns the records, to which nothing refers any longer.
        let _ = unsafe { pages::unmap(self.records, record_bytes(self.slot)) };
        // SAFETY: the range owns these pages (invariant of `base`), and no slot is used.
        let _ = unsafe { pages::unmap(self.base, bytes) };
    }
}

fn words_for(slot: ArenaSize) -> usize {
    BITMAPS * bits::words_for(BYTES / slot.bytes())
}

/// Returns the size in bytes of the mapping that holds the bitmaps and the extents.
fn record_bytes(slot: ArenaSize) -> usize {
    let extents = BYTES / slot.bytes() * size_of::<u32>();
    (words_for(slot) * size_of::<usize>() + extents).next_multiple_of(pages::page_size())
}

/// Reserves `count` slots and the page after them, at the first of `starts` that is free.
///
/// `starts` contains two addresses. If both are in use, the system chooses another multiple of
/// `align`. Returns the address of the first slot and the number of slots.
fn reserve_slots(
    starts: [usize; 2],
    count: usize,
    slot: ArenaSize,
    align: usize,
    access: Access,
) -> Result<(NonNull<u8>, usize), OsCode> {
    let bytes = count * slot.bytes() + pages::page_size();
    for wanted in starts {
        let start = pages::map(wanted, bytes, access)?;
        if start.addr().get() == wanted {
            return Ok((start, count));
        }
        // SAFETY: the pages were mapped above, and nothing uses them. A failure loses only addresses.
        let _ = unsafe { pages::unmap(start, bytes) };
    }
    Ok((pages::map_aligned(bytes, align, access)?, count))
}

/// Returns two multiples of `align` in `STARTS` that differ from process to process.
///
/// `mapping` is the address of a mapping. We derive the two results from it and from the address of
/// a local variable, because the system randomises both. The second result is far away from the
/// first. It is needed if another range of this process already occupies the first.
fn random_starts(mapping: usize, align: usize) -> [usize; 2] {
    let on_stack = 0_u8;
    let seed = mapping ^ (&raw const on_stack).addr().rotate_left(20);
    [0, 1].map(|nth| {
        let mixed = (seed >> 4).wrapping_add(nth).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        align_down(STARTS.start + (mixed >> 8) % STARTS.len(), align)
    })
}

#[cfg(test)]
mod tests;
