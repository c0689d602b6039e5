//! A source that keeps some free arenas for later requests.
//!
//! Keeping free arenas saves system calls and page faults in programs that repeatedly empty and
//! refill arenas.
//!
//! - The number of kept arenas is limited. The limit starts at 0, so the first arenas that a
//!   program frees are unmapped.
//! - Each request that follows an unmapping within the decay time (one second by default) raises
//!   the limit by one, up to [`MAX_RETAINED`].
//! - The limit includes free arenas that users of the source, such as heaps, keep themselves.
//! - If no arena was requested for the decay time, the limit drops to 0 and the source unmaps its
//!   kept arenas when the next arena comes back.

use core::ptr::NonNull;
use std::time::{Duration, Instant};

use crate::{ArenaSize, ArenaSource, LargeMapping, MapError};

/// The largest number of free arenas that a source and its users keep together.
pub const MAX_RETAINED: usize = 16;

const DECAY: Duration = Duration::from_secs(1);

/// A source that wraps another source and keeps some free arenas for later requests.
///
/// If the wrapped source cannot map an arena, the kept arenas are unmapped before a second attempt.
///
/// ```
/// use raw_mem::{ArenaSize, ArenaSource, MmapArenas, RetainingArenas};
///
/// let size = ArenaSize::new(1 << 20).unwrap();
/// let mut source = RetainingArenas::new(MmapArenas::new());
/// let mut arena = source.map(size)?;
/// for _ in 0..2 {
///     // SAFETY: the arena was mapped above, and nothing uses it.
///     unsafe { source.unmap(arena, size) };
///     arena = source.map(size)?;
/// }
/// assert_eq!(source.retained(), 0);
/// // SAFETY: as above. An arena that comes back again and again is retained.
/// unsafe { source.unmap(arena, size) };
/// assert_eq!(source.retained(), 1);
/// # Ok::<(), raw_mem::MapError>(())
/// ```
#[derive(Debug)]
pub struct RetainingArenas<S: ArenaSource> {
    source: S,
    decay: Duration,
    requested: Option<Instant>,
    /// # Invariant
    ///
    /// The first `count` arenas of the array came from `source`, have the size `size`, and are not
    /// in use.
    arenas: [NonNull<u8>; MAX_RETAINED],
    count: usize,
    size: Option<ArenaSize>,
    by_users: usize,
    /// The largest number of free arenas that the source and its users may keep at present.
    limit: usize,
    /// The number of recently unmapped arenas that a higher limit would have kept.
    unmapped: usize,
}

// SAFETY: the source owns the kept arenas exclusively, and arenas are not tied to a thread.
unsafe impl<S: ArenaSource + Send> Send for RetainingArenas<S> {}

impl<S: ArenaSource> RetainingArenas<S> {
    /// Wraps `source`, with a decay time of one second.
    pub const fn new(source: S) -> Self {
        Self::with_decay(source, DECAY)
    }

    /// Wraps `source` and keeps free arenas only within `decay` of the last request for an arena.
    pub const fn with_decay(source: S, decay: Duration) -> Self {
        Self {
            source,
            decay,
            requested: None,
            arenas: [NonNull::dangling(); MAX_RETAINED],
            count: 0,
            size: None,
            by_users: 0,
            limit: 0,
            unmapped: 0,
        }
    }

    /// Returns how many free arenas this source and its users keep together.
    pub const fn retained(&self) -> usize {
        self.count + self.by_users
    }

    /// Lowers the count of free arenas that users keep to at most `count`.
    ///
    /// A forked child calls this function, because the users of other threads are gone.
    pub fn limit_users_to(&mut self, count: usize) {
        self.by_users = self.by_users.min(count);
    }

    fn is_in_demand(&self) -> bool {
        self.requested.is_some_and(|requested| requested.elapsed() < self.decay)
    }

    /// Returns how many more free arenas may be kept at present.
    fn room(&self) -> usize {
        match self.is_in_demand() {
            true => self.limit.saturating_sub(self.retained()),
            false => 0,
        }
    }

    fn note_request(&mut self) {
        if !self.is_in_demand() {
            self.reset_limit();
        }
        self.requested = Some(Instant::now());
    }

    /// Raises the limit if a recently unmapped arena could have served this request.
    fn note_miss(&mut self) {
        if self.unmapped > 0 {
            self.unmapped -= 1;
            self.limit = MAX_RETAINED.min(self.limit + 1);
        }
    }

    fn reset_limit(&mut self) {
        self.limit = 0;
        self.unmapped = 0;
    }

    /// Keeps `arena`, or returns false if the limit or the size of the kept arenas forbids it.
    fn push(&mut self, arena: NonNull<u8>, size: ArenaSize) -> bool {
        let fits = self.count == 0 || self.size == Some(size);
        if !fits || self.room() == 0 {
            return false;
        }
        // INVARIANT: a user passed the arena to `unmap`, so `source` mapped it and it is unused.
        self.arenas[self.count] = arena;
        self.count += 1;
        self.size = Some(size);
        true
    }

    /// Removes the arena that was kept last, unless the kept arenas have another size.
    fn pop(&mut self, size: ArenaSize) -> Option<NonNull<u8>> {
        if self.size != Some(size) {
            return None;
        }
        self.count = self.count.checked_sub(1)?;
        Some(self.arenas[self.count])
    }

    /// Unmaps the free arenas that this source itself keeps.
    fn unmap_retained(&mut self) {
        let Some(size) = self.size else { return };
        while let Some(arena) = self.pop(size) {
            // SAFETY: the arena came from `source` and is not in use (invariant of `arenas`).
            unsafe { self.source.unmap(arena, size) };
        }
    }
}

// SAFETY: every arena comes from the wrapped source, and is returned again only after its user
// passed it to `unmap`.
unsafe impl<S: ArenaSource> ArenaSource for RetainingArenas<S> {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        self.note_request();
        if let Some(arena) = self.pop(size) {
            return Ok(arena);
        }
        self.note_miss();
        self.source.map(size).or_else(|error| {
            if self.count == 0 {
                return Err(error);
            }
            self.unmap_retained();
            self.source.map(size)
        })
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        if self.push(arena, size) {
            return;
        }
        if self.is_in_demand() {
            self.unmapped = MAX_RETAINED.min(self.unmapped + 1);
        } else {
            self.unmap_retained();
            self.reset_limit();
        }
        // SAFETY: the wrapped source mapped the arena, which is unused (contract of `unmap`).
        unsafe { self.source.unmap(arena, size) };
    }

    fn map_large(&mut self, bytes: usize, align: ArenaSize) -> Result<LargeMapping, MapError> {
        self.source.map_large(bytes, align).or_else(|error| {
            if self.count == 0 {
                return Err(error);
            }
            self.unmap_retained();
            self.source.map_large(bytes, align)
        })
    }

    fn below(&mut self) -> Option<&mut dyn ArenaSource> {
        Some(&mut self.source)
    }

    fn trim(&mut self) {
        self.unmap_retained();
        self.source.trim();
    }

    fn retain(&mut self, had: usize, want: usize) -> usize {
        self.by_users = self.by_users.saturating_sub(had);
        let granted = want.min(self.room());
        self.by_users += granted;
        granted
    }

    fn reuse_retained(&mut self, count: usize) {
        self.by_users = self.by_users.saturating_sub(count);
        self.note_request();
    }
}

impl<S: ArenaSource> Drop for RetainingArenas<S> {
    fn drop(&mut self) {
        self.unmap_retained();
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::{
        Malloc, MallocArenas,
        arena_source::recording::{Call, RANGE, Recording},
    };

    const SIZE: ArenaSize = ArenaSize::new(1 << 16).unwrap();
    const SMALL: ArenaSize = ArenaSize::new(1 << 12).unwrap();
    const HOUR: Duration = Duration::from_secs(3600);

    /// A source that refuses to map more than `max` arenas at the same time.
    #[derive(Debug)]
    struct Counting {
        source: MallocArenas<Malloc>,
        mapped: usize,
        max: usize,
    }

    // SAFETY: the wrapped source maps and unmaps every arena.
    unsafe impl ArenaSource for Counting {
        fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
            if self.mapped == self.max {
                return Err(MapError::Exhausted { size });
            }
            self.mapped += 1;
            self.source.map(size)
        }

        unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
            self.mapped -= 1;
            // SAFETY: the arena came from the wrapped source (contract of `unmap`).
            unsafe { self.source.unmap(arena, size) };
        }
    }

    fn source(decay: Duration, max: usize) -> RetainingArenas<Counting> {
        let below = Counting { source: MallocArenas::new(Malloc), mapped: 0, max };
        RetainingArenas::with_decay(below, decay)
    }

    fn map(source: &mut RetainingArenas<Counting>, arenas: usize) -> Vec<NonNull<u8>> {
        (0..arenas).map(|_| source.map(SIZE).unwrap()).collect()
    }

    fn unmap(source: &mut RetainingArenas<Counting>, arenas: Vec<NonNull<u8>>) {
        for arena in arenas {
            // SAFETY: the tests unmap each arena once, and only arenas of this source.
            unsafe { source.unmap(arena, SIZE) };
        }
    }

    /// Maps, unmaps and maps `arenas` arenas again, which raises the limit by `arenas`.
    fn cycle(source: &mut RetainingArenas<Counting>, arenas: usize) -> Vec<NonNull<u8>> {
        let first = map(source, arenas);
        unmap(source, first);
        map(source, arenas)
    }

    fn figures(source: &RetainingArenas<Counting>) -> (usize, usize) {
        (source.retained(), source.source.mapped)
    }

    #[test]
    fn arenas_that_come_back_for_the_first_time_are_unmapped() {
        let mut source = source(HOUR, usize::MAX);
        let arenas = map(&mut source, MAX_RETAINED);
        unmap(&mut source, arenas);
        assert_eq!(figures(&source), (0, 0));
    }

    #[test]
    fn as_many_arenas_are_retained_as_came_back_and_were_requested_again() {
        let mut source = source(HOUR, usize::MAX);
        let mut arenas = map(&mut source, 10);
        let tail = arenas.split_off(3);
        unmap(&mut source, tail);
        arenas.extend(map(&mut source, 2));
        unmap(&mut source, arenas);
        assert_eq!(figures(&source), (2, 2));
    }

    #[test]
    fn a_pause_resets_the_limit() {
        let mut source = source(HOUR, usize::MAX);
        let arenas = cycle(&mut source, 3);
        source.decay = Duration::ZERO;
        let more = map(&mut source, 1);
        source.decay = HOUR;
        unmap(&mut source, arenas);
        unmap(&mut source, more);
        assert_eq!(figures(&source), (0, 0));
    }

    #[test]
    fn retained_arenas_serve_the_next_requests_latest_first() {
        let mut source = source(HOUR, 3);
        let arenas = cycle(&mut source, 3);
        unmap(&mut source, arenas.clone());
        assert_eq!(figures(&source), (3, 3));
        let again = map(&mut source, 3);
        assert!(again.iter().eq(arenas.iter().rev()));
        unmap(&mut source, again);
    }

    #[test]
    fn at_most_16_arenas_are_retained() {
        let mut source = source(HOUR, usize::MAX);
        let arenas = cycle(&mut source, 21);
        unmap(&mut source, arenas);
        assert_eq!(figures(&source), (16, 16));
    }

    #[test]
    fn all_retained_arenas_are_unmapped_after_the_decay_time() {
        let mut source = source(HOUR, usize::MAX);
        let mut arenas = cycle(&mut source, 3);
        let last = arenas.split_off(2);
        unmap(&mut source, arenas);
        source.decay = Duration::ZERO;
        unmap(&mut source, last);
        assert_eq!(figures(&source), (0, 0));
    }

    #[test]
    fn users_retain_as_many_arenas_as_the_limit_leaves() {
        let mut source = source(HOUR, usize::MAX);
        assert_eq!(source.retain(0, 1), 0);
        let mut arenas = cycle(&mut source, MAX_RETAINED);
        let last = arenas.split_off(1);
        unmap(&mut source, arenas);
        assert_eq!(source.retain(0, 9), 9);
        assert_eq!(source.retain(0, 9), MAX_RETAINED - 10);
        assert_eq!(source.retain(9, 10), 9);
        source.reuse_retained(2);
        assert_eq!(source.retain(7, 8), 8);
        source.decay = Duration::ZERO;
        assert_eq!(source.retain(8, 9), 0);
        assert_eq!(source.retain(MAX_RETAINED - 10, 0), 0);
        assert_eq!(source.retained(), 1);
        unmap(&mut source, last);
    }

    #[test]
    fn what_lost_users_retained_can_be_retained_by_others() {
        let mut source = source(HOUR, usize::MAX);
        let mut arenas = cycle(&mut source, MAX_RETAINED);
        let last = arenas.split_off(1);
        assert_eq!(source.retain(0, MAX_RETAINED), MAX_RETAINED);
        source.limit_users_to(MAX_RETAINED - 1);
        assert_eq!(source.retain(0, 2), 1);
        source.limit_users_to(0);
        assert_eq!(source.retain(0, 1), 1);
        unmap(&mut source, arenas);
        assert_eq!(source.retained(), 2);
        // A user that was counted as lost reuses two arenas.
        source.reuse_retained(2);
        assert_eq!(source.retained(), 1);
        unmap(&mut source, last);
    }

    #[test]
    fn a_trim_and_a_drop_unmap_what_is_retained() {
        let mut source = source(HOUR, usize::MAX);
        let arenas = cycle(&mut source, 2);
        unmap(&mut source, arenas);
        source.trim();
        assert_eq!(figures(&source), (0, 0));
        let mut over = RetainingArenas::with_decay(&mut source.source, HOUR);
        for _ in 0..2 {
            let arena = over.map(SIZE).unwrap();
            // SAFETY: the arena was mapped above.
            unsafe { over.unmap(arena, SIZE) };
        }
        assert_eq!(over.retained(), 1);
        drop(over);
        assert_eq!(source.source.mapped, 0);
    }

    #[test]
    fn trims_and_purges_reach_the_source_below() {
        let mut source = RetainingArenas::new(Recording::default());
        let place = NonNull::dangling();
        source.trim();
        // SAFETY: the source below touches no memory.
        assert_eq!(unsafe { source.purge(place, 64) }, Ok(()));
        assert_eq!(source.source.0, [Call::Trim, Call::Purge(place, 64)]);
    }

    #[test]
    fn calls_for_large_mappings_reach_the_source_below() {
        let mut source = RetainingArenas::new(Recording::default());
        let place = NonNull::dangling();
        assert!(source.map_large(1, SIZE).is_err());
        // SAFETY: the source below touches no memory.
        unsafe {
            source.unmap_large(place, 2, SIZE);
            assert!(source.resize_large(place, 3, 4, SIZE).is_err());
        }
        assert_eq!(source.reserved(), Some(RANGE));
        let expected =
            [Call::MapLarge(1), Call::UnmapLarge(place, 2), Call::ResizeLarge(place, 3, 4)];
        assert_eq!(source.source.0, expected);
    }

    #[test]
    fn an_arena_that_a_user_allocates_from_again_is_demand() {
        let mut source = source(HOUR, usize::MAX);
        assert_eq!(source.retain(0, 0), 0);
        assert!(!source.is_in_demand());
        source.reuse_retained(0);
        assert!(source.is_in_demand());
    }

    #[test]
    fn a_retained_arena_of_another_size_is_never_handed_out() {
        let mut source = source(HOUR, 2);
        let arenas = cycle(&mut source, 1);
        unmap(&mut source, arenas);
        let small = source.map(SMALL).unwrap();
        assert_eq!(source.source.mapped, 2);
        // SAFETY: the arena was mapped above.
        unsafe { source.unmap(small, SMALL) };
        assert_eq!(figures(&source), (1, 1));
    }

    #[test]
    fn retained_arenas_are_unmapped_before_a_request_fails() {
        let mut source = source(HOUR, 1);
        let arenas = cycle(&mut source, 1);
        unmap(&mut source, arenas);
        assert_eq!(source.retained(), 1);
        let small = source.map(SMALL).unwrap();
        assert!(source.map(SMALL).is_err());
        // SAFETY: the arena was mapped above.
        unsafe { source.unmap(small, SMALL) };
    }
}
