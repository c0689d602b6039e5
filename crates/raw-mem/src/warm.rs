//! Arenas that came back, retained for a program that empties and fills them in turn.
//!
//! ```text
//!   map ◄── retained, the last one first ◄── unmap     while arenas come back only to be asked for
//!    ▲                                         │
//!    └─────── the source below ◄───────────────┘       otherwise
//! ```
//!
//! Without this source, such a program would pay for every cycle: the system takes the pages of an
//! arena away and later provides zeroed ones, with a page fault for each. A program that needed
//! much memory only briefly, however, should retain none of it. What happens next tells the two
//! apart:
//!
//! 1. If an arena was returned to the source below, and an arena is requested again within the
//!    patience, the first one could have been retained. We therefore retain as many arenas as there
//!    were such requests, but at most [`MOST_KEPT`]. A program that drops what it has for the first
//!    time retains nothing.
//! 2. The limit holds for the arenas here and for those that owners retain together. An owner finds
//!    its arenas as it left them, cut into pools.
//! 3. If an arena comes back after the patience has run out, it goes to the source below together
//!    with all arenas retained here, and the limit becomes 0. A request after that time also sets
//!    the limit to 0.
//! 4. If the source below cannot map an arena, the arenas retained here are returned to it, and it
//!    is asked once more. Owners keep the arenas that they retain, so a request can fail while such
//!    arenas exist.

use core::{ffi::CStr, ptr::NonNull};
use std::time::{Duration, Instant};

use crate::{Advice, AdviseError, ArenaSize, ArenaSource, MapError};

/// The most arenas that are kept.
pub const MOST_KEPT: usize = 16;

/// How long after the last request arenas are kept, if nothing else is said.
const PATIENCE: Duration = Duration::from_secs(1);

/// An arena source that keeps some of what comes back, for the next requests.
///
/// ```
/// use raw_mem::{ArenaSize, ArenaSource, MmapArenas, WarmArenas};
///
/// let size = ArenaSize::new(1 << 20).unwrap();
/// let mut source = WarmArenas::new(MmapArenas::new());
/// let mut arena = source.map(size)?;
/// for _ in 0..2 {
///     // SAFETY: it was mapped just now, and nobody uses it.
///     unsafe { source.unmap(arena, size) };
///     arena = source.map(size)?;
/// }
/// assert_eq!(source.kept(), 0);
/// // SAFETY: as above. An arena that comes back a second time is retained.
/// unsafe { source.unmap(arena, size) };
/// assert_eq!(source.kept(), 1);
/// # Ok::<(), raw_mem::MapError>(())
/// ```
#[derive(Debug)]
pub struct WarmArenas<S: ArenaSource> {
    source: S,
    patience: Duration,
    /// When an arena was last asked for.
    asked: Option<Instant>,
    /// # Invariant
    ///
    /// The first `count` came from `source` with the size `size`, and nobody uses them.
    kept: [NonNull<u8>; MOST_KEPT],
    count: usize,
    /// Arenas that owners keep.
    with_owners: usize,
    /// How many arenas may be retained. At most [`MOST_KEPT`].
    wanted: usize,
    /// Arenas returned to the source below within the patience and not yet requested again. At most
    /// [`MOST_KEPT`].
    gone: usize,
    size: Option<ArenaSize>,
}

// SAFETY: what is kept is memory that nobody uses, and belongs to no thread.
unsafe impl<S: ArenaSource + Send> Send for WarmArenas<S> {}

impl<S: ArenaSource> WarmArenas<S> {
    /// The arenas of `source`, kept for a second after the last request.
    pub const fn new(source: S) -> Self {
        Self::with_patience(source, PATIENCE)
    }

    /// The arenas of `source`, kept for `patience` after the last request.
    pub const fn with_patience(source: S, patience: Duration) -> Self {
        let kept = [NonNull::dangling(); MOST_KEPT];
        Self {
            source,
            patience,
            asked: None,
            kept,
            count: 0,
            with_owners: 0,
            wanted: 0,
            gone: 0,
            size: None,
        }
    }

    /// How many arenas are kept, here and by owners.
    pub const fn kept(&self) -> usize {
        self.count + self.with_owners
    }

    /// Counts no arena as kept by an owner but so many `of_one`: for the child of a fork, which has
    /// no thread but one.
    pub fn forget_owners_but(&mut self, of_one: usize) {
        self.with_owners = self.with_owners.min(of_one);
    }

    /// Arenas are asked for at this time.
    fn is_asked(&self) -> bool {
        self.asked.is_some_and(|asked| asked.elapsed() < self.patience)
    }

    /// One more arena may be retained.
    fn has_room(&self) -> bool {
        self.kept() < self.wanted && self.is_asked()
    }

    /// Notes that an arena is asked for, at this time.
    fn ask(&mut self) {
        if !self.is_asked() {
            self.forget_demand();
        }
        self.asked = Some(Instant::now());
    }

    /// Records that a request reaches the source below. If an arena was returned to it, that arena
    /// could have been retained, so the limit grows by one.
    fn miss(&mut self) {
        if self.gone > 0 {
            self.gone -= 1;
            self.wanted = MOST_KEPT.min(self.wanted + 1);
        }
    }

    /// Retains nothing from now on, until arenas are asked for again.
    fn forget_demand(&mut self) {
        self.wanted = 0;
        self.gone = 0;
    }

    fn keep(&mut self, arena: NonNull<u8>, size: ArenaSize) -> bool {
        let fits = self.count == 0 || self.size == Some(size);
        if !fits || !self.has_room() {
            return false;
        }
        // INVARIANT: it came back just now.
        self.kept[self.count] = arena;
        self.count += 1;
        self.size = Some(size);
        true
    }

    fn take(&mut self, size: ArenaSize) -> Option<NonNull<u8>> {
        if self.size != Some(size) {
            return None;
        }
        self.count = self.count.checked_sub(1)?;
        Some(self.kept[self.count])
    }

    fn release(&mut self) {
        let Some(size) = self.size else { return };
        while let Some(arena) = self.take(size) {
            // SAFETY: the invariant of `kept`, which it has just left.
            unsafe { self.source.unmap(arena, size) };
        }
    }
}

// SAFETY: every arena is the source's below, handed out by it once and by us only between its
// coming back and its being asked for again.
unsafe impl<S: ArenaSource> ArenaSource for WarmArenas<S> {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        self.ask();
        if let Some(arena) = self.take(size) {
            return Ok(arena);
        }
        self.miss();
        self.source.map(size).or_else(|error| {
            if self.count == 0 {
                return Err(error);
            }
            self.release();
            self.source.map(size)
        })
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        if self.keep(arena, size) {
            return;
        }
        if self.is_asked() {
            self.gone = MOST_KEPT.min(self.gone + 1);
        } else {
            self.release();
            self.forget_demand();
        }
        // SAFETY: the caller's promise; the arena came from the source below.
        unsafe { self.source.unmap(arena, size) };
    }

    unsafe fn advise(
        &mut self,
        start: NonNull<u8>,
        len: usize,
        advice: Advice,
    ) -> Result<(), AdviseError> {
        // SAFETY: the caller's promise, which is about the source below as well.
        unsafe { self.source.advise(start, len, advice) }
    }

    fn name(&mut self, name: &'static CStr) {
        self.source.name(name);
    }

    fn trim(&mut self) {
        self.release();
        self.source.trim();
    }

    fn would_keep(&mut self) -> bool {
        let would = self.has_room();
        self.with_owners += usize::from(would);
        would
    }

    fn kept_no_longer(&mut self, arenas: usize, used: bool) {
        self.with_owners = self.with_owners.saturating_sub(arenas);
        if used {
            self.ask();
        }
    }
}

impl<S: ArenaSource> Drop for WarmArenas<S> {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::{
        Malloc, MallocArenas,
        arena_source::recording::{Call, Recording},
    };

    const SIZE: ArenaSize = ArenaSize::new(1 << 16).unwrap();
    const SMALL: ArenaSize = ArenaSize::new(1 << 12).unwrap();
    const HOUR: Duration = Duration::from_secs(3600);

    /// A source that counts what it has given, and gives `most` at a time.
    #[derive(Debug)]
    struct Counting {
        source: MallocArenas<Malloc>,
        mapped: usize,
        most: usize,
    }

    // SAFETY: the arenas are those of the source below.
    unsafe impl ArenaSource for Counting {
        fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
            if self.mapped == self.most {
                return Err(MapError::Exhausted { size });
            }
            self.mapped += 1;
            self.source.map(size)
        }

        unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
            self.mapped -= 1;
            // SAFETY: the caller's promise.
            unsafe { self.source.unmap(arena, size) };
        }
    }

    fn source(patience: Duration, most: usize) -> WarmArenas<Counting> {
        let below = Counting { source: MallocArenas::new(Malloc), mapped: 0, most };
        WarmArenas::with_patience(below, patience)
    }

    fn map(source: &mut WarmArenas<Counting>, arenas: usize) -> Vec<NonNull<u8>> {
        (0..arenas).map(|_| source.map(SIZE).unwrap()).collect()
    }

    fn unmap(source: &mut WarmArenas<Counting>, arenas: Vec<NonNull<u8>>) {
        for arena in arenas {
            // SAFETY: the tests give back what they mapped, once.
            unsafe { source.unmap(arena, SIZE) };
        }
    }

    /// Makes `arenas` arenas come back and be asked for again, so that as many are retained next time.
    fn cycle(source: &mut WarmArenas<Counting>, arenas: usize) -> Vec<NonNull<u8>> {
        let first = map(source, arenas);
        unmap(source, first);
        map(source, arenas)
    }

    #[test]
    fn what_comes_back_for_the_first_time_goes_to_the_system() {
        let mut source = source(HOUR, usize::MAX);
        let arenas = map(&mut source, MOST_KEPT);
        unmap(&mut source, arenas);
        assert_eq!((source.kept(), source.source.mapped), (0, 0));
    }

    #[test]
    fn as_many_are_retained_as_came_back_and_were_asked_for_again() {
        let mut source = source(HOUR, usize::MAX);
        let mut arenas = map(&mut source, 10);
        let tail = arenas.split_off(3);
        unmap(&mut source, tail);
        arenas.extend(map(&mut source, 2));
        unmap(&mut source, arenas);
        assert_eq!((source.kept(), source.source.mapped), (2, 2));
    }

    #[test]
    fn a_pause_ends_the_demand() {
        let mut source = source(HOUR, usize::MAX);
        let arenas = cycle(&mut source, 3);
        source.patience = Duration::ZERO;
        let more = map(&mut source, 1);
        source.patience = HOUR;
        unmap(&mut source, arenas);
        unmap(&mut source, more);
        assert_eq!((source.kept(), source.source.mapped), (0, 0));
    }

    #[test]
    fn arenas_that_came_back_serve_the_next_requests_the_last_one_first() {
        let mut source = source(HOUR, 3);
        let arenas = cycle(&mut source, 3);
        unmap(&mut source, arenas.clone());
        assert_eq!((source.kept(), source.source.mapped), (3, 3));
        let again = map(&mut source, 3);
        assert!(again.iter().eq(arenas.iter().rev()));
        unmap(&mut source, again);
    }

    #[test]
    fn no_more_than_16_are_kept() {
        let mut source = source(HOUR, usize::MAX);
        let arenas = cycle(&mut source, 21);
        unmap(&mut source, arenas);
        assert_eq!((source.kept(), source.source.mapped), (16, 16));
    }

    #[test]
    fn when_no_arena_was_asked_for_lately_all_go_back() {
        let mut source = source(HOUR, usize::MAX);
        let mut arenas = cycle(&mut source, 3);
        let last = arenas.split_off(2);
        unmap(&mut source, arenas);
        source.patience = Duration::ZERO;
        unmap(&mut source, last);
        assert_eq!((source.kept(), source.source.mapped), (0, 0));
    }

    #[test]
    fn owners_keep_as_many_together_while_arenas_are_asked_for() {
        let mut source = source(HOUR, usize::MAX);
        assert!(!source.would_keep());
        let mut arenas = cycle(&mut source, MOST_KEPT);
        let last = arenas.split_off(1);
        unmap(&mut source, arenas);
        // Whichever owners they are; one is kept here already.
        assert!((1..MOST_KEPT).all(|_| source.would_keep()));
        assert!(!source.would_keep());
        source.kept_no_longer(2, true);
        assert!(source.would_keep());
        source.patience = Duration::ZERO;
        assert!(!source.would_keep());
        source.kept_no_longer(MOST_KEPT - 2, false);
        assert_eq!(source.kept(), 1);
        unmap(&mut source, last);
    }

    #[test]
    fn owners_that_are_forgotten_leave_their_share_to_others() {
        let mut source = source(HOUR, usize::MAX);
        let mut arenas = cycle(&mut source, MOST_KEPT);
        let last = arenas.split_off(1);
        assert!((0..MOST_KEPT).all(|_| source.would_keep()));
        source.forget_owners_but(MOST_KEPT - 1);
        assert!(source.would_keep() && !source.would_keep());
        source.forget_owners_but(0);
        assert!(source.would_keep());
        unmap(&mut source, arenas);
        assert_eq!(source.kept(), 2);
        // One of those that were forgotten is used again.
        source.kept_no_longer(2, true);
        assert_eq!(source.kept(), 1);
        unmap(&mut source, last);
    }

    #[test]
    fn a_trim_and_a_drop_give_back_what_is_kept() {
        let mut source = source(HOUR, usize::MAX);
        let arenas = cycle(&mut source, 2);
        unmap(&mut source, arenas);
        source.trim();
        assert_eq!((source.kept(), source.source.mapped), (0, 0));
        let mut over = WarmArenas::with_patience(&mut source.source, HOUR);
        for _ in 0..2 {
            let arena = over.map(SIZE).unwrap();
            // SAFETY: it was mapped just now.
            unsafe { over.unmap(arena, SIZE) };
        }
        assert_eq!(over.kept(), 1);
        drop(over);
        assert_eq!(source.source.mapped, 0);
    }

    #[test]
    fn the_source_below_hears_of_advice_names_and_trims() {
        let mut source = WarmArenas::new(Recording::default());
        let place = NonNull::dangling();
        source.name(c"arenas");
        source.trim();
        // SAFETY: the source below touches no memory.
        assert_eq!(unsafe { source.advise(place, 64, Advice::Free) }, Ok(()));
        let expected = [Call::Name(c"arenas"), Call::Trim, Call::Advise(place, 64, Advice::Free)];
        assert_eq!(source.source.0, expected);
    }

    #[test]
    fn an_arena_that_an_owner_uses_again_counts_as_asked_for() {
        let mut source = source(HOUR, usize::MAX);
        source.kept_no_longer(0, false);
        assert!(!source.is_asked());
        source.kept_no_longer(0, true);
        assert!(source.is_asked());
    }

    #[test]
    fn an_arena_of_another_size_is_never_handed_out() {
        let mut source = source(HOUR, 2);
        let arenas = cycle(&mut source, 1);
        unmap(&mut source, arenas);
        let small = source.map(SMALL).unwrap();
        assert_eq!(source.source.mapped, 2);
        // SAFETY: it was mapped just now.
        unsafe { source.unmap(small, SMALL) };
        assert_eq!((source.kept(), source.source.mapped), (1, 1));
    }

    #[test]
    fn what_is_kept_goes_back_before_a_request_fails() {
        let mut source = source(HOUR, 1);
        let arenas = cycle(&mut source, 1);
        unmap(&mut source, arenas);
        assert_eq!(source.kept(), 1);
        let small = source.map(SMALL).unwrap();
        assert!(source.map(SMALL).is_err());
        // SAFETY: it was mapped above.
        unsafe { source.unmap(small, SMALL) };
    }
}
