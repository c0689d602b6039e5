//! A source that takes arenas and large mappings from one reserved range of addresses.
//!
//! ```text
//!  base                                     reserved()           the range grows here
//!  ┌───────┬───────┬───────┬───────┬───────┬───────┬───────┬──────┐ ─ ─ ─ ─ ─ ─ ─ ─ ─►
//!  │ arena │ arena │ large mapping │ free  │ never │ never │ page │
//!  └───────┴───────┴───────┴───────┴───────┴───────┴───────┴──────┘
//!    slot    slot    slot    slot    slot    slot    slot    never used
//! ```
//!
//! On the first request, the source reserves a range of addresses, divided into slots of the size
//! of an arena.
//!
//! Only this source maps memory in the range, so a single comparison shows whether an address
//! belongs to the source. There is one exception. If a failed system call has unmapped a part of
//! the range, another mapping can take its place. This is unlikely, because the system uses these
//! addresses only if the program asks for one of them.
//!
//! - The range begins with 16 MiB and grows at its end, up to [`RESERVED_BYTES`]. It can grow as
//!   long as the addresses after it are free and the system allows it.
//! - Once a slot has been used, its addresses are never released to other mappings. When the slot
//!   is no longer used, we make it inaccessible in place. A trim unmaps the slots that were never
//!   used.
//! - The system keeps each run of inaccessible slots as a mapping of its own, and limits the number
//!   of mappings. If there are thousands of such runs, further unused slots return their memory but
//!   stay writable.
//! - If the system refuses to reserve a range, we do not try again, and all memory comes from the
//!   wrapped source. The wrapped source also serves each request that the range cannot serve.
//! - The memory of an unmapped arena is returned to the system at once. An unmapped large mapping
//!   may be retained, because page faults dominate the cost of a large block. `Demand` determines
//!   how much may be retained. Any excess is returned at the next call that maps or unmaps.
//! - A large mapping grows in place if the slots after it are not used. Otherwise its pages move to
//!   another run of slots.
//!
//! With [huge pages](crate::HugePages), free slots stay writable, and memory is returned to the
//! system in units of a huge page.
//!
//! [`RESERVED_BYTES`]: crate::RESERVED_BYTES

use core::{fmt, ops::Range, ptr::NonNull, time::Duration};

use crate::{
    ArenaSize, ArenaSource, Contents, HugePages, LargeMapping, MapError, PurgeError, clock,
    demand::DECAY, pages, preserving_errno,
};

mod bits;
mod extents;
mod huge;
mod large;
mod range;
mod slots;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use range::ReservedRange;

/// A source that takes arenas and large mappings from one reserved range of addresses.
///
/// The wrapped source serves the requests that the range cannot serve.
///
/// ```
/// use raw_mem::{ArenaSize, ArenaSource, MmapArenas, ReservedArenas};
///
/// let size = ArenaSize::new(1 << 20).unwrap();
/// let mut source = ReservedArenas::new(MmapArenas::new());
/// let block = source.map_large(5_000_000, size)?;
/// assert!(block.is_zeroed && block.bytes >= 5_000_000);
/// // SAFETY: the mapping came from this source, and nothing uses it.
/// let block = unsafe { source.resize_large(block.start, block.bytes, 9_000_000, size) }?;
/// // SAFETY: as above.
/// unsafe { source.unmap_large(block.start, block.bytes, size) };
/// # Ok::<(), raw_mem::MapError>(())
/// ```
pub struct ReservedArenas<S> {
    source: S,
    /// True once we have tried to reserve the range.
    was_tried: bool,
    range: Option<ReservedRange>,
    /// The largest size of the range in bytes.
    most: usize,
    huge: HugePages,
    clock: fn() -> Duration,
}

// SAFETY: the source owns its range exclusively, and mappings are not tied to a thread.
unsafe impl<S: Send> Send for ReservedArenas<S> {}

impl<S> ReservedArenas<S> {
    /// Wraps `source`. The first request reserves the range.
    pub const fn new(source: S) -> Self {
        Self::with_clock(source, clock::coarse_now)
    }

    const fn with_clock(source: S, clock: fn() -> Duration) -> Self {
        let most = crate::RESERVED_BYTES as usize;
        Self { source, was_tried: false, range: None, most, huge: HugePages::Off, clock }
    }

    /// Returns the range if its slots have the size `size`. The first call reserves the range.
    fn range_for(&mut self, size: ArenaSize) -> Option<&mut ReservedRange> {
        if !self.was_tried {
            self.was_tried = true;
            self.range = ReservedRange::reserve(size, self.most, self.huge, DECAY);
        }
        let now = (self.clock)();
        let range = self.range.as_mut().filter(|range| range.slot_size() == size)?;
        range.demand.advance_to(now);
        Some(range)
    }

    /// Returns the range if `address` lies in it.
    fn range_at(&mut self, address: NonNull<u8>) -> Option<&mut ReservedRange> {
        let now = (self.clock)();
        let range = self.range.as_mut().filter(|range| range.contains(address.addr().get()))?;
        range.demand.advance_to(now);
        Some(range)
    }

    /// Lowers the number of slots that the users are assumed to retain to at most `slots`.
    ///
    /// A forked child calls this function, because the users of other threads no longer exist.
    pub fn limit_large_users_to(&mut self, slots: usize) {
        if let Some(range) = &mut self.range {
            range.limit_users_to(slots);
        }
    }

    /// Returns retained memory and unused reserved addresses to the system. Returns true if there
    /// were any.
    fn trim_range(&mut self) -> bool {
        self.range.as_mut().is_some_and(ReservedRange::trim)
    }
}

impl<S: ArenaSource> ReservedArenas<S> {
    fn try_map(&mut self, size: ArenaSize) -> Result<(NonNull<u8>, Contents), MapError> {
        if let Some(range) = self.range_for(size)
            && let Some(arena) = range.map_arena()
        {
            range.release_excess();
            return Ok(arena);
        }
        self.source.map_with_contents(size)
    }

    fn try_map_large(&mut self, bytes: usize, align: ArenaSize) -> Result<LargeMapping, MapError> {
        if let Some(range) = self.range_for(align)
            && let Some(mapping) = range.map_large(bytes)
        {
            range.release_excess();
            return Ok(mapping);
        }
        self.source.map_large(bytes, align)
    }
}

// SAFETY: a run of slots overlaps no other run in use, and is writable. The wrapped source maps all
// other memory. `reserved` covers the slots that were ever used. These slots stay mapped, so
// nothing else maps memory there, unless a failed system call has unmapped some (see the module).
unsafe impl<S: ArenaSource> ArenaSource for ReservedArenas<S> {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        Ok(self.map_with_contents(size)?.0)
    }

    /// Usually makes one system call.
    fn map_with_contents(&mut self, size: ArenaSize) -> Result<(NonNull<u8>, Contents), MapError> {
        self.try_map(size).or_else(|error| match self.trim_range() {
            true => self.try_map(size),
            false => Err(error),
        })
    }

    /// Usually makes one system call. `errno` is unchanged.
    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        preserving_errno(|| match self.range_at(arena) {
            Some(range) => {
                range.release_excess();
                // SAFETY: the arena lies in the range, and nothing uses it (contract of `unmap`).
                unsafe { range.unmap_arena(arena) };
            }
            // SAFETY: the wrapped source mapped the arena, and nothing uses it (contract).
            None => unsafe { self.source.unmap(arena, size) },
        });
    }

    /// Maps memory for a large block, usually with few system calls.
    ///
    /// If the source has retained enough adjacent memory, usually no system call is needed.
    /// Otherwise, one system call makes the memory of the new mapping writable.
    ///
    /// The source may also move retained memory from other addresses to the new mapping. Each piece
    /// of retained memory then takes three more system calls: one checks that the piece can be
    /// moved, one moves its pages, and one makes the old addresses inaccessible.
    fn map_large(&mut self, bytes: usize, align: ArenaSize) -> Result<LargeMapping, MapError> {
        self.try_map_large(bytes, align).or_else(|error| match self.trim_range() {
            true => self.try_map_large(bytes, align),
            false => Err(error),
        })
    }

    /// Usually makes no system call. `errno` is unchanged.
    unsafe fn unmap_large(&mut self, start: NonNull<u8>, bytes: usize, align: ArenaSize) {
        preserving_errno(|| match self.range_at(start) {
            Some(range) => {
                // SAFETY: the mapping lies in the range, and nothing uses it (contract).
                unsafe { range.unmap_large(start, bytes) };
                range.release_excess();
            }
            // SAFETY: the wrapped source mapped the memory, and nothing uses it (contract).
            None => unsafe { self.source.unmap_large(start, bytes, align) },
        });
    }

    /// Moves the mapping inside the range if it cannot grow in place.
    ///
    /// The contents are copied only if the system cannot move their pages.
    unsafe fn resize_large(
        &mut self,
        start: NonNull<u8>,
        old: usize,
        new: usize,
        align: ArenaSize,
    ) -> Result<LargeMapping, MapError> {
        let Some(range) = self.range_at(start) else {
            // SAFETY: the wrapped source mapped the memory; the caller upholds the rest.
            return unsafe { self.source.resize_large(start, old, new, align) };
        };
        // SAFETY: the mapping lies in the range; the caller upholds the rest.
        let resized = unsafe { range.resize_large(start, old, new) };
        range.release_excess();
        resized.ok_or(MapError::LargeExhausted { bytes: new })
    }

    /// Makes one system call (`madvise`). `errno` is unchanged.
    unsafe fn purge(&mut self, start: NonNull<u8>, len: usize) -> Result<(), PurgeError> {
        match self.range.as_ref().is_some_and(|range| range.contains(start.addr().get())) {
            // SAFETY: the range lies in a mapped arena and is no longer needed (contract).
            true => unsafe { pages::purge_inside(start, len) },
            // SAFETY: the wrapped source mapped the arena; the caller upholds the rest.
            false => unsafe { self.source.purge(start, len) },
        }
    }

    fn retained_bytes(&mut self) -> usize {
        self.range.as_ref().map_or(0, ReservedRange::retained_bytes) + self.source.retained_bytes()
    }

    fn trim(&mut self) -> usize {
        let retained =
            |source: &Self| source.range.as_ref().map_or(0, ReservedRange::retained_bytes);
        let before = retained(self);
        preserving_errno(|| self.trim_range());
        before.saturating_sub(retained(self)) + self.source.trim()
    }

    /// `errno` is unchanged.
    fn decay(&mut self) {
        let now = (self.clock)();
        if let Some(range) = &mut self.range {
            range.demand.advance_to(now);
            preserving_errno(|| range.release_excess());
        }
        self.source.decay();
    }

    fn retain_large(&mut self, had: usize, want: usize) -> usize {
        let now = (self.clock)();
        let Some(range) = &mut self.range else { return 0 };
        range.demand.advance_to(now);
        preserving_errno(|| range.retain_by_users(had, want))
    }

    fn reserved(&mut self) -> Range<usize> {
        self.range.as_ref().map_or(0..0, ReservedRange::addresses)
    }

    fn reserve_at_most(&mut self, bytes: usize) {
        self.most = bytes;
        if let Some(range) = &mut self.range {
            range.limit_to(bytes);
        }
    }

    fn use_huge_pages(&mut self, huge: HugePages) {
        self.huge = huge;
        if let Some(range) = &mut self.range {
            range.use_huge_pages(huge);
        }
    }

    unsafe fn shrink_reserved(&mut self, publish: &mut dyn FnMut(Range<usize>)) {
        if let Some(range) = &mut self.range {
            preserving_errno(|| range.give_back_end(publish));
        }
    }

    fn below(&mut self) -> Option<&mut dyn ArenaSource> {
        Some(&mut self.source)
    }
}

impl<S: fmt::Debug> fmt::Debug for ReservedArenas<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = self.range.as_ref().map(ReservedRange::addresses);
        let mut output = f.debug_struct("ReservedArenas");
        output.field("addresses", &addresses).field("source", &self.source).finish()
    }
}
