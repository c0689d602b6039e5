//! A source that retains some free arenas for later requests.
//!
//! Retaining free arenas saves system calls and page faults in programs that repeatedly empty and
//! refill arenas.
//!
//! - The number of retained arenas is limited. The limit starts at 0, so the first arenas that a
//!   program frees are unmapped.
//! - If a request follows an unmapping within the decay time (one second by default), it raises the
//!   limit by one.
//! - Arenas in use and retained arenas together never exceed one and a half times the number of
//!   arenas that were in use recently. "Recently" means within the last one to two decay times.
//! - These rules also apply to free arenas that users of the source, such as heaps, retain
//!   themselves.
//! - If no arena is requested for the decay time, the limit drops to 0, and the source unmaps its
//!   retained arenas at the next call.

use core::{ptr::NonNull, time::Duration};

use crate::{
    ArenaSize, ArenaSource, Contents, LargeMapping, MapError, ReservedArenas, clock,
    demand::{DECAY, Demand},
    without_unwinding,
};

/// The percentage by which arenas in use and retained arenas may exceed the recent peak of arenas
/// in use.
///
/// This margin is needed because heaps cannot share free arenas: one heap may need an arena while
/// another retains some.
const ABOVE_PEAK: usize = 50;

/// A source that wraps another source and retains some free arenas for later requests.
///
/// If the wrapped source cannot map an arena, the retained arenas are unmapped before a second
/// attempt.
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
/// // SAFETY: as above. An arena that is repeatedly unmapped and requested is retained.
/// unsafe { source.unmap(arena, size) };
/// assert_eq!(source.retained(), 1);
/// # Ok::<(), raw_mem::MapError>(())
/// ```
#[derive(Debug)]
pub struct RetainingArenas<S: ArenaSource> {
    source: S,
    clock: fn() -> Duration,
    demand: Demand,
    /// The retained arena that was unmapped last.
    ///
    /// # Invariant
    ///
    /// - `first` is the head of a linked list of `count` free arenas. Each of these arenas begins
    ///   with a list entry of type `Kept`.
    /// - `source` mapped every arena in the list. All of these arenas have the same size, which is
    ///   stored in the field `size`.
    first: Option<NonNull<Kept>>,
    count: usize,
    size: Option<ArenaSize>,
    by_users: usize,
}

/// The list entry at the start of a retained arena.
#[derive(Debug)]
struct Kept {
    next: Option<NonNull<Self>>,
}

// The smallest arena has room for a list entry, and is aligned for it.
const _: () = assert!(size_of::<Kept>() <= 64 && align_of::<Kept>() <= 64);

// SAFETY: the source owns the retained arenas exclusively, and arenas are not tied to a thread.
unsafe impl<S: ArenaSource + Send> Send for RetainingArenas<S> {}

impl<S: ArenaSource> RetainingArenas<S> {
    /// Wraps `source`, with a decay time of one second.
    pub const fn new(source: S) -> Self {
        Self::with_decay(source, DECAY)
    }

    /// Wraps `source`. Free arenas are retained only within `decay` of the last request for an
    /// arena.
    pub const fn with_decay(source: S, decay: Duration) -> Self {
        Self::with_clock(source, decay, clock::coarse_now)
    }

    /// Wraps `source`, and measures the decay time with `clock`.
    ///
    /// `clock` returns the time since an arbitrary start. If `clock` panics, the process is
    /// aborted.
    pub const fn with_clock(source: S, decay: Duration, clock: fn() -> Duration) -> Self {
        let demand = Demand::new(decay, ABOVE_PEAK);
        Self { source, clock, demand, first: None, count: 0, size: None, by_users: 0 }
    }

    /// Returns the total number of free arenas that this source and its users retain.
    pub const fn retained(&self) -> usize {
        self.count.saturating_add(self.by_users)
    }

    /// Lowers the number of free arenas that the users are assumed to retain to at most `count`.
    ///
    /// A forked child calls this function, because the users of other threads no longer exist.
    pub fn limit_users_to(&mut self, count: usize) {
        self.by_users = self.by_users.min(count);
    }

    /// Returns how many more free arenas may be retained at present.
    fn room(&self) -> usize {
        self.demand.allowed().saturating_sub(self.retained())
    }

    /// Retains `arena`. Returns false if the demand forbids it, or if the retained arenas have
    /// another size.
    ///
    /// # Safety
    ///
    /// `source` must have mapped the arena with this size, and nothing may use it afterwards.
    unsafe fn push(&mut self, arena: NonNull<u8>, size: ArenaSize) -> bool {
        let fits = self.count == 0 || self.size == Some(size);
        if !fits || self.room() == 0 {
            return false;
        }
        let kept = arena.cast::<Kept>();
        // SAFETY: the arena is mapped, unused, and has room for an entry (contract of `push`).
        unsafe { kept.write(Kept { next: self.first }) };
        // INVARIANT: the arena is mapped and unused (contract of `push`), and starts with an entry.
        self.first = Some(kept);
        self.count += 1;
        self.size = Some(size);
        true
    }

    /// Removes the arena that was retained last, unless the retained arenas have another size.
    fn pop(&mut self, size: ArenaSize) -> Option<NonNull<u8>> {
        let kept = self.first.filter(|_| self.size == Some(size))?;
        // SAFETY: the arena is mapped, unused, and starts with an entry (invariant of `first`).
        self.first = unsafe { kept.read() }.next;
        self.count -= 1;
        Some(kept.cast())
    }

    /// Unmaps arenas that this source itself retains, until at most `most` are left.
    ///
    /// Returns the size of the unmapped arenas, in bytes.
    fn unmap_retained(&mut self, most: usize) -> usize {
        let Some(size) = self.size else { return 0 };
        let before = self.count;
        while self.count > most
            && let Some(arena) = self.pop(size)
        {
            self.demand.give_back(1);
            // SAFETY: the arena came from `source` and is not in use (invariant of `first`).
            unsafe { self.source.unmap(arena, size) };
        }
        (before - self.count) * size.bytes()
    }

    /// Unmaps the free arenas that exceed the recent demand.
    fn unmap_excess(&mut self) {
        if self.count > 0 {
            self.unmap_retained(self.demand.allowed().saturating_sub(self.by_users));
        }
    }
}

impl<S: ArenaSource> RetainingArenas<ReservedArenas<S>> {
    /// Lowers the number of slots of large mappings that the users are assumed to retain to at most
    /// `slots`.
    ///
    /// A forked child calls this function, because the users of other threads no longer exist.
    pub fn limit_large_users_to(&mut self, slots: usize) {
        self.source.limit_large_users_to(slots);
    }
}

// SAFETY: every arena comes from the wrapped source, and is returned again only after its user
// passed it to `unmap`.
unsafe impl<S: ArenaSource> ArenaSource for RetainingArenas<S> {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        Ok(self.map_with_contents(size)?.0)
    }

    fn map_with_contents(&mut self, size: ArenaSize) -> Result<(NonNull<u8>, Contents), MapError> {
        self.demand.advance_to(without_unwinding(self.clock));
        if let Some(arena) = self.pop(size) {
            self.demand.request(1, 1);
            self.unmap_excess();
            return Ok((arena, Contents::Unknown));
        }
        let arena = self.source.map_with_contents(size).or_else(|error| {
            if self.count == 0 {
                return Err(error);
            }
            self.unmap_retained(0);
            self.source.map_with_contents(size)
        })?;
        self.demand.request(1, 0);
        self.unmap_excess();
        Ok(arena)
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        self.demand.advance_to(without_unwinding(self.clock));
        self.demand.vacate(1);
        // SAFETY: the wrapped source mapped the arena, which is unused (contract of `unmap`).
        if !unsafe { self.push(arena, size) } {
            self.demand.give_back(1);
            // SAFETY: as above.
            unsafe { self.source.unmap(arena, size) };
        }
        self.unmap_excess();
    }

    fn map_large(&mut self, bytes: usize, align: ArenaSize) -> Result<LargeMapping, MapError> {
        self.source.map_large(bytes, align).or_else(|error| {
            if self.count == 0 {
                return Err(error);
            }
            self.unmap_retained(0);
            self.source.map_large(bytes, align)
        })
    }

    fn below(&mut self) -> Option<&mut dyn ArenaSource> {
        Some(&mut self.source)
    }

    fn retained_bytes(&mut self) -> usize {
        self.count * self.size.map_or(0, ArenaSize::bytes) + self.source.retained_bytes()
    }

    fn trim(&mut self) -> usize {
        self.unmap_retained(0) + self.source.trim()
    }

    fn decay(&mut self) {
        self.demand.advance_to(without_unwinding(self.clock));
        self.unmap_excess();
        self.source.decay();
    }

    fn retain(&mut self, had: usize, want: usize) -> usize {
        self.demand.advance_to(without_unwinding(self.clock));
        self.by_users = self.by_users.saturating_sub(had);
        self.demand.occupy(had);
        self.demand.vacate(want);
        let granted = want.min(self.room());
        self.by_users += granted;
        // The user unmaps the other arenas, so they count as in use until then.
        self.demand.occupy(want - granted);
        self.unmap_excess();
        granted
    }

    fn reuse_retained(&mut self, count: usize) {
        self.demand.advance_to(without_unwinding(self.clock));
        self.by_users = self.by_users.saturating_sub(count);
        self.demand.request(count, count);
        self.unmap_excess();
    }
}

impl<S: ArenaSource> Drop for RetainingArenas<S> {
    fn drop(&mut self) {
        self.unmap_retained(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::{cell::Cell, vec::Vec};

    use super::*;
    use crate::{
        MmapArenas,
        arena_source::recording::{Call, RANGE, Recording},
    };

    const SIZE: ArenaSize = ArenaSize::new(1 << 16).unwrap();
    const SMALL: ArenaSize = ArenaSize::new(1 << 12).unwrap();
    const SECOND: Duration = Duration::from_secs(1);

    thread_local! {
        static NOW: Cell<Duration> = const { Cell::new(Duration::from_secs(1000)) };
    }

    fn wait(time: Duration) {
        NOW.set(NOW.get() + time);
    }

    /// A source that refuses to map more than `max` arenas at the same time.
    #[derive(Debug)]
    struct Counting {
        source: MmapArenas,
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

    /// Creates a source of at most `max` arenas, with a clock that only [`wait`] advances.
    fn source(max: usize) -> RetainingArenas<Counting> {
        let below = Counting { source: MmapArenas::new(), mapped: 0, max };
        RetainingArenas::with_clock(below, SECOND, || NOW.get())
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
        let mut source = source(usize::MAX);
        let arenas = map(&mut source, 16);
        unmap(&mut source, arenas);
        assert_eq!(figures(&source), (0, 0));
    }

    #[test]
    fn as_many_arenas_are_retained_as_came_back_and_were_requested_again() {
        let mut source = source(usize::MAX);
        let mut arenas = map(&mut source, 10);
        let tail = arenas.split_off(3);
        unmap(&mut source, tail);
        arenas.extend(map(&mut source, 2));
        unmap(&mut source, arenas);
        assert_eq!(figures(&source), (2, 2));
    }

    #[test]
    fn a_large_batch_is_retained_from_its_second_turn() {
        let mut source = source(usize::MAX);
        let mut arenas = map(&mut source, 40);
        for turn in 1..5 {
            unmap(&mut source, arenas);
            let retained = if turn == 1 { 0 } else { 40 };
            assert_eq!(figures(&source), (retained, retained), "turn {turn}");
            arenas = map(&mut source, 40);
            assert_eq!(figures(&source), (0, 40), "turn {turn}");
        }
        unmap(&mut source, arenas);
    }

    #[test]
    #[cfg(all(unix, not(miri)))]
    fn the_contents_of_a_retained_arena_are_unknown() {
        let mut source = RetainingArenas::new(crate::MmapArenas::new());
        for expected in [Contents::Zero, Contents::Zero, Contents::Unknown] {
            let (arena, contents) = source.map_with_contents(SIZE).unwrap();
            assert_eq!(contents, expected);
            // SAFETY: the arena was mapped above.
            unsafe { source.unmap(arena, SIZE) };
        }
    }

    #[test]
    fn a_pause_resets_the_limit() {
        let mut source = source(usize::MAX);
        let arenas = cycle(&mut source, 3);
        wait(SECOND);
        let more = map(&mut source, 1);
        unmap(&mut source, arenas);
        unmap(&mut source, more);
        assert_eq!(figures(&source), (0, 0));
    }

    #[test]
    fn retained_arenas_serve_the_next_requests_latest_first() {
        let mut source = source(3);
        let arenas = cycle(&mut source, 3);
        unmap(&mut source, arenas.clone());
        assert_eq!(figures(&source), (3, 3));
        let again = map(&mut source, 3);
        assert!(again.iter().eq(arenas.iter().rev()));
        unmap(&mut source, again);
    }

    #[test]
    fn arenas_beyond_the_recent_peak_are_unmapped() {
        let mut source = source(usize::MAX);
        let arenas = cycle(&mut source, 8);
        unmap(&mut source, arenas);
        assert_eq!(figures(&source), (8, 8));
        let one = map(&mut source, 1);
        for _ in 0..2 {
            wait(SECOND * 2 / 3);
            source.reuse_retained(0);
        }
        assert_eq!(figures(&source), (7, 8));
        wait(SECOND * 2 / 3);
        source.reuse_retained(0);
        wait(SECOND * 2 / 3);
        source.reuse_retained(0);
        assert_eq!(figures(&source), (0, 1));
        unmap(&mut source, one);
    }

    #[test]
    fn all_retained_arenas_are_unmapped_at_the_first_call_after_the_decay_time() {
        type Step = fn(&mut RetainingArenas<Counting>, NonNull<u8>);
        let calls: [(Step, usize); 4] = [
            // SAFETY: the arena is mapped, and is not used again.
            (|source, arena| unsafe { source.unmap(arena, SIZE) }, 0),
            (|source, _| assert_eq!(source.retain(0, 1), 0), 1),
            (|source, _| source.reuse_retained(0), 1),
            (|source, _| source.map(SIZE).map(drop).unwrap(), 2),
        ];
        for (call, mapped) in calls {
            let mut source = source(usize::MAX);
            let mut arenas = cycle(&mut source, 3);
            let last = arenas.remove(0);
            unmap(&mut source, arenas);
            assert_eq!(figures(&source), (2, 3));
            wait(SECOND);
            call(&mut source, last);
            assert_eq!(figures(&source), (0, mapped));
        }
    }

    #[test]
    fn users_retain_as_many_arenas_as_the_limit_leaves() {
        let mut source = source(usize::MAX);
        assert_eq!(source.retain(0, 1), 0);
        // The source retains one of the 17 arenas, and users retain the other 16.
        let mut arenas = cycle(&mut source, 17);
        let last = arenas.split_off(16);
        unmap(&mut source, last);
        assert_eq!(source.retain(0, 9), 9);
        assert_eq!(source.retain(0, 7), 7);
        assert_eq!((source.retain(9, 10), source.demand.in_use()), (9, 1));
        source.reuse_retained(2);
        assert_eq!(source.retain(7, 8), 8);
        assert_eq!(source.retained(), 16);
        wait(SECOND);
        assert_eq!(source.retain(8, 9), 0);
        assert_eq!(source.retain(7, 0), 0);
        assert_eq!(figures(&source), (0, 16));
    }

    #[test]
    fn a_wrong_report_of_a_user_does_not_cause_an_overflow() {
        for wrong in [usize::MAX, usize::MAX / 2, 1 << 56] {
            let mut source = source(usize::MAX);
            for _ in 0..3 {
                let arenas = cycle(&mut source, 8);
                source.reuse_retained(wrong);
                source.retain(wrong, wrong - 1);
                source.retain(0, wrong);
                source.retain(wrong, 0);
                unmap(&mut source, arenas);
                wait(SECOND / 2);
            }
        }
    }

    #[test]
    fn what_users_retain_is_not_in_use() {
        let mut source = source(usize::MAX);
        let arenas = cycle(&mut source, 8);
        assert_eq!((source.retain(0, 3), source.demand.in_use()), (3, 5));
        assert_eq!((source.retain(3, 1), source.demand.in_use()), (1, 7));
        source.reuse_retained(1);
        assert_eq!((source.retained(), source.demand.in_use()), (0, 8));
        unmap(&mut source, arenas);
        assert_eq!((source.retained(), source.demand.in_use()), (8, 0));
    }

    #[test]
    fn what_lost_users_retained_can_be_retained_by_others() {
        let mut source = source(usize::MAX);
        let _arenas = cycle(&mut source, 16);
        assert_eq!(source.retain(0, 15), 15);
        source.limit_users_to(14);
        assert_eq!(source.retain(0, 1), 1);
        source.limit_users_to(0);
        assert_eq!((source.retained(), source.demand.in_use()), (0, 0));
        // A user that was counted as lost reuses two arenas.
        source.reuse_retained(2);
        assert_eq!((source.retained(), source.demand.in_use()), (0, 2));
        assert_eq!(source.retain(0, 2), 2);
    }

    #[test]
    fn a_trim_and_a_drop_unmap_what_is_retained() {
        let mut source = source(usize::MAX);
        let arenas = cycle(&mut source, 2);
        unmap(&mut source, arenas);
        source.trim();
        assert_eq!(figures(&source), (0, 0));
        let mut over = RetainingArenas::new(&mut source.source);
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
        assert_eq!(source.reserved(), RANGE);
        let expected =
            [Call::MapLarge(1), Call::UnmapLarge(place, 2), Call::ResizeLarge(place, 3, 4)];
        assert_eq!(source.source.0, expected);
    }

    #[test]
    fn an_arena_that_a_user_allocates_from_again_is_demand() {
        let mut source = source(usize::MAX);
        let mut arenas = cycle(&mut source, 2);
        let last = arenas.split_off(1);
        unmap(&mut source, arenas);
        wait(SECOND / 2);
        source.reuse_retained(0);
        wait(SECOND / 2);
        unmap(&mut source, last);
        assert_eq!(figures(&source), (2, 2));
    }

    #[test]
    fn a_retained_arena_of_another_size_is_never_handed_out() {
        let mut source = source(3);
        let arenas = cycle(&mut source, 2);
        unmap(&mut source, arenas);
        let small = source.map(SMALL).unwrap();
        // Two arenas were in use recently, and one of the arenas in use is now small. One more may
        // be retained.
        assert_eq!(figures(&source), (2, 3));
        // SAFETY: the arena was mapped above.
        unsafe { source.unmap(small, SMALL) };
        assert_eq!(figures(&source), (2, 2));
    }

    #[test]
    fn retained_arenas_are_unmapped_before_a_request_fails() {
        let mut source = source(1);
        let arenas = cycle(&mut source, 1);
        unmap(&mut source, arenas);
        assert_eq!(source.retained(), 1);
        let small = source.map(SMALL).unwrap();
        assert!(source.map(SMALL).is_err());
        // SAFETY: the arena was mapped above.
        unsafe { source.unmap(small, SMALL) };
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Map,
        Unmap(usize),
        Empty(usize),
        Reuse,
        Wait(u64),
    }

    /// Returns random steps after which about `arenas` arenas are in use.
    fn mix(arenas: usize) -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => Just(Step::Map),
            8 => any::<usize>().prop_map(Step::Unmap),
            2 => any::<usize>().prop_map(Step::Empty),
            2 => Just(Step::Reuse),
            1 => (1..900_u64).prop_map(Step::Wait),
        ];
        let start = prop::collection::vec(Just(Step::Map), arenas);
        (start, prop::collection::vec(step, 1..300)).prop_map(|(start, mix)| [start, mix].concat())
    }

    proptest! {
        #[test]
        fn no_more_is_retained_than_the_recent_peak_allows(steps in mix(20)) {
            let mut source = source(usize::MAX);
            let (mut arenas, mut empty) = (Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Map => arenas.extend(map(&mut source, 1)),
                    Step::Unmap(nth) if !arenas.is_empty() => {
                        let arena = arenas.swap_remove(nth % arenas.len());
                        unmap(&mut source, vec![arena]);
                    }
                    // A heap asks to retain one more arena, and unmaps the arenas that it must not
                    // retain.
                    Step::Empty(nth) if !arenas.is_empty() => {
                        let had = empty.len();
                        empty.push(arenas.swap_remove(nth % arenas.len()));
                        let granted = source.retain(had, had + 1);
                        let others = empty.split_off(granted);
                        unmap(&mut source, others);
                    }
                    Step::Reuse if !empty.is_empty() => {
                        arenas.extend(empty.pop());
                        source.reuse_retained(1);
                    }
                    Step::Wait(milliseconds) => wait(Duration::from_millis(milliseconds)),
                    _ => continue,
                }
                prop_assert_eq!(source.demand.in_use(), arenas.len());
                prop_assert_eq!(source.retained(), source.count + empty.len());
                prop_assert_eq!(source.source.mapped, arenas.len() + source.retained());
                let most = source.demand.below_most().max(empty.len());
                prop_assert!(source.retained() <= most, "{} of {most}", source.retained());
            }
            source.retain(empty.len(), 0);
            unmap(&mut source, arenas);
            unmap(&mut source, empty);
        }
    }
}
