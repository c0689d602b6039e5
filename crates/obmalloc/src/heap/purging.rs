//! The rules for when a heap returns free memory inside its arenas to the system.
//!
//! ```text
//!   page      in use ──────► free ──────► uncarved, or part of a free unit ──────► purged
//!                       the last block     the next sweep finds it       a later sweep finds that
//!                       is freed                                         nobody has used it since
//! ```
//!
//! An *uncarved* page belongs to a pool but is not divided into blocks (see `arena::uncarved`).
//!
//! The slow paths of the heap call this module. It checks the clock in every 64th call.
//!
//! - A *sweep* takes place every two fifths of the decay time. A page is purged if two successive
//!   sweeps find it free. If the program takes slow paths often enough, memory is therefore
//!   returned after at least two fifths of the decay time, and after at most the whole decay time.
//! - If a quarter of the heap becomes free at once, that memory is purged immediately. Likewise,
//!   the arena source immediately unmaps the first memory that a program frees.
//!
//! There are two kinds of purges: those in a sweep, and immediate ones. A purge was a mistake if
//! the program soon reuses more than a quarter of the purged pages. After a mistake, the heap
//! pauses purges of the same kind. Each further mistake of this kind doubles the length of the
//! pause, up to a limit.

#![forbid(unsafe_code)]

use core::time::Duration;

use raw_mem::without_unwinding;

/// The number of slow paths that a heap takes between two checks of the clock.
pub(crate) const VISITS: u32 = 64;

/// Walks over the free blocks may take at most `1 / PART_OF_TIME` of the time.
const PART_OF_TIME: u32 = 64;

/// If part of the heap has become free, walks may take `1 / PART_OF_TIME_IF_LOOSER` of the time.
const PART_OF_TIME_IF_LOOSER: u32 = 4;

/// The longest pause after a mistake, as a multiple of the time between two sweeps.
const LONGEST_PAUSE: u32 = 32;

/// The shortest time between two trims that are caused by a memory shortage.
const LEAST_BETWEEN_TRIMS: Duration = Duration::from_millis(500);

/// Trims caused by a memory shortage may take at most `1 / PART_OF_TIME_IF_SHORT` of the time.
const PART_OF_TIME_IF_SHORT: u32 = 16;

/// At least this many units must become free or nearly free to cause an immediate purge.
const MANY_UNITS: usize = 1024;

/// At least `1 / LARGE_PART` of all units must become free or nearly free to cause an immediate
/// purge.
const LARGE_PART: usize = 4;

/// A purge was worthwhile if at most `1 / PART_REUSED` of its pages were used again.
const PART_REUSED: usize = 4;

/// The rules for when a heap returns free memory inside its arenas to the system automatically.
///
/// If an arena contains no live block, the heap unmaps the whole arena, unless the [arena
/// source](raw_mem::ArenaSource) lets the heap retain it. If an arena contains live blocks, the
/// heap can return only the free pages of this arena.
///
/// The policy has no effect on a heap that imitates a version of CPython, for example with the
/// geometry [`Pools16K`](crate::Pools16K). Such a heap unmaps arenas by the rules of that version,
/// and never returns parts of an arena.
///
/// ```
/// use core::time::Duration;
/// use obmalloc::{Heap, Native, PurgePolicy, SizeClass};
/// use raw_mem::{Malloc, MmapArenas, coarse_now};
///
/// let mut heap = Heap::<_, _, Native>::with_geometry(MmapArenas::new(), Malloc);
/// heap.set_purge_policy(PurgePolicy::after(Duration::from_secs(1), coarse_now));
/// let class = SizeClass::of(3000).ok_or("too large")?;
/// let blocks = [(); 9].map(|()| heap.alloc(class));
/// for block in blocks.into_iter().skip(1).flatten() {
///     // SAFETY: the block came from this heap, and is not used again.
///     unsafe { heap.free(block) };
/// }
/// // If the heap were used, it would return the memory automatically. `trim` returns it at once.
/// assert!(heap.trim() >= 20_000);
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PurgePolicy {
    pub(crate) decay: Duration,
    pub(crate) limit: usize,
    clock: Option<fn() -> Duration>,
    pub(crate) is_short: Option<fn(Duration) -> bool>,
    pub(crate) whole_arenas: bool,
}

impl PurgePolicy {
    /// Returns no memory unless [`Heap::trim`](crate::Heap::trim) is called. Every new heap has
    /// this policy.
    pub const NEVER: Self = Self {
        decay: Duration::MAX,
        limit: usize::MAX,
        clock: None,
        is_short: None,
        whole_arenas: false,
    };

    /// Returns memory after it has been free for at least two fifths of `decay` and at most the
    /// whole of `decay`.
    ///
    /// `clock` must return the time that has passed since some fixed moment, for example since the
    /// system started. If `decay` is zero, the heap returns memory as soon as it notices that the
    /// memory is free. If `clock` panics, the process is aborted.
    pub const fn after(decay: Duration, clock: fn() -> Duration) -> Self {
        Self { decay, clock: Some(clock), ..Self::NEVER }
    }

    /// Returns the time between two sweeps. Two such intervals are a little less than the decay
    /// time.
    pub(crate) fn interval(&self) -> Duration {
        self.decay.saturating_mul(2) / 5
    }

    /// Returns all unused memory while memory is short, regardless of the decay time.
    ///
    /// `is_short` must return true while the system or the container is running out of memory.
    /// Whenever the heap checks the time with `clock`, it calls `is_short` and passes the time as
    /// the argument.
    ///
    /// While `is_short` returns true, the heap trims itself repeatedly. To limit the cost, the heap
    /// waits between two trims for at least half a second, and for at least 16 times as long as the
    /// last trim took.
    ///
    /// `is_short` should return quickly. It must not use the heap, and must leave `errno`
    /// unchanged. If it panics, the process is aborted.
    ///
    /// ```
    /// use obmalloc::PurgePolicy;
    /// use raw_mem::coarse_now;
    ///
    /// // A program can replace the second function by one that reads a limit of its container.
    /// let policy = PurgePolicy::NEVER.when_short(coarse_now, |_| false);
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub const fn when_short(self, clock: fn() -> Duration, is_short: fn(Duration) -> bool) -> Self {
        Self { clock: Some(clock), is_short: Some(is_short), ..self }
    }

    /// Returns only whole arenas, unless [`Heap::trim`](crate::Heap::trim) is called or memory is
    /// short.
    ///
    /// Use this policy with huge pages, because returning a part of an arena breaks up a huge page.
    #[must_use]
    pub const fn of_whole_arenas(self) -> Self {
        Self { whole_arenas: true, ..self }
    }

    /// Returns the current time, or `None` if the policy has no clock.
    pub(crate) fn now(&self) -> Option<Duration> {
        self.clock.map(without_unwinding)
    }

    /// Returns true if memory is returned after a decay time.
    pub(crate) fn decays(&self) -> bool {
        self.decay != Duration::MAX
    }

    /// If the total size of free units exceeds `bytes`, also returns free units earlier. A unit has
    /// 16 KiB.
    #[must_use]
    pub const fn with_limit(self, bytes: usize) -> Self {
        Self { limit: bytes, ..self }
    }
}

/// Which free units are purged. Uncarved pages are purged in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    /// The units that were already free at the last sweep.
    Idle,
    /// All units except those of free arenas, which the source lets the heap retain.
    InArenasInUse,
}

/// The reason for a purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The memory has been free for a while.
    Idle,
    /// Much of the heap has become free.
    Drop,
}

/// A time during which nothing is purged for a certain reason, because an earlier purge was a
/// mistake.
#[derive(Clone, Copy, Debug)]
struct Pause {
    end: Duration,
    length: Duration,
}

impl Pause {
    const NONE: Self = Self { end: Duration::ZERO, length: Duration::ZERO };

    /// Begins a pause that is twice as long as the previous one.
    fn begin(&mut self, now: Duration, shortest: Duration) {
        let longest = shortest.saturating_mul(LONGEST_PAUSE);
        self.length = self.length.saturating_mul(2).clamp(shortest, longest);
        self.end = now.saturating_add(self.length);
    }
}

/// The state of a heap's policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Purging {
    pub(crate) policy: PurgePolicy,
    /// The number of slow paths until the next check of the clock.
    pub(crate) visits: u32,
    /// The number of units that became free or nearly free, minus the number that became used or
    /// full.
    ///
    /// The value is never negative. Each walk over the free blocks resets it.
    pub(crate) loosened: usize,
    /// The time at the last check of the clock, or zero before the first one.
    pub(crate) looked: Duration,
    /// The time of the next sweep, or zero before the first check of the clock.
    pub(crate) due: Duration,
    /// The time from which the heap may be trimmed again because memory is short.
    trim_due: Duration,
    /// The start of the last walk over the free blocks, and its duration.
    walk: (Duration, Duration),
    /// The pause for each of the two reasons.
    pauses: [Pause; 2],
    /// The number of pages in the last purge, and its reason. The number is 0 after a mistake.
    purged: (usize, Reason),
}

impl Purging {
    pub(crate) const NEVER: Self = Self {
        policy: PurgePolicy::NEVER,
        visits: VISITS,
        loosened: 0,
        looked: Duration::ZERO,
        due: Duration::ZERO,
        trim_due: Duration::ZERO,
        walk: (Duration::ZERO, Duration::ZERO),
        pauses: [Pause::NONE; 2],
        purged: (0, Reason::Idle),
    };

    pub(crate) const fn new(policy: PurgePolicy) -> Self {
        Self { policy, ..Self::NEVER }
    }

    /// Records that `units` units have become free or nearly free.
    #[inline]
    pub(crate) fn note_loosened(&mut self, units: usize) {
        self.loosened += units;
    }

    /// Records that `units` units have become used or full.
    #[inline]
    pub(crate) fn note_tightened(&mut self, units: usize) {
        self.loosened = self.loosened.saturating_sub(units);
    }

    /// Returns true if a large part of the heap's `units` units has become free or nearly free.
    pub(crate) fn is_much_looser(&self, units: usize) -> bool {
        self.loosened >= (units / LARGE_PART).max(MANY_UNITS)
    }

    /// Returns true if the heap, which has `units` units, may walk over its free blocks now.
    pub(crate) fn may_walk(&self, units: usize, now: Duration) -> bool {
        let is_looser = self.loosened * PART_OF_TIME as usize >= units;
        let part = if is_looser { PART_OF_TIME_IF_LOOSER } else { PART_OF_TIME };
        let (start, took) = self.walk;
        now >= start.saturating_add(took.saturating_mul(part))
    }

    /// Records that a walk over the free blocks has taken from `start` until now.
    pub(crate) fn note_walk(&mut self, start: Duration) {
        let end = self.policy.now().unwrap_or(start);
        self.walk = (start, end.saturating_sub(start));
    }

    /// Decides whether the last purge was a mistake. `reused` is the number of purged pages that
    /// are used again.
    pub(crate) fn judge(&mut self, reused: usize, now: Duration) {
        let (purged, reason) = self.purged;
        if purged > 0 && reused * PART_REUSED > purged {
            self.pauses[reason as usize].begin(now, self.policy.interval());
            self.purged.0 = 0;
        }
    }

    /// Returns true if the heap should be trimmed because memory is short.
    pub(crate) fn should_trim(&self, now: Duration) -> bool {
        let Some(is_short) = self.policy.is_short else { return false };
        without_unwinding(|| is_short(now)) && now >= self.trim_due
    }

    /// Records that a trim because of a memory shortage has taken from `start` until now.
    pub(crate) fn note_trimmed(&mut self, start: Duration) {
        let end = self.policy.now().unwrap_or(start);
        let took = end.saturating_sub(start);
        let pause = took.saturating_mul(PART_OF_TIME_IF_SHORT).max(LEAST_BETWEEN_TRIMS);
        self.trim_due = end.saturating_add(pause);
    }

    pub(crate) fn may_purge(&self, reason: Reason, now: Duration) -> bool {
        now >= self.pauses[reason as usize].end
    }

    /// Records that `pages` pages were purged.
    pub(crate) fn note_purged(&mut self, pages: usize, reason: Reason) {
        if pages == 0 {
            return;
        }
        if self.purged.0 > 0 {
            // The previous purge was not a mistake, so the next pause for its reason is shorter.
            self.pauses[self.purged.1 as usize].length /= 2;
        }
        self.purged = (pages, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purges_that_were_no_mistakes_shorten_the_next_pause() {
        let policy = PurgePolicy::after(Duration::from_secs(5), || Duration::ZERO);
        let mut purging = Purging::new(policy);
        let mut pause_after = |good_purges: usize| {
            for _ in 0..good_purges {
                purging.note_purged(100, Reason::Idle);
            }
            purging.note_purged(100, Reason::Idle);
            purging.judge(26, Duration::ZERO);
            purging.pauses[Reason::Idle as usize].end.as_secs()
        };
        assert_eq!([0, 0, 0, 1, 2].map(&mut pause_after), [2, 4, 8, 8, 4]);
    }

    #[test]
    fn each_mistake_doubles_the_pause_up_to_32_intervals() {
        let (mut pause, now) = (Pause::NONE, Duration::from_secs(100));
        let mut intervals = || {
            pause.begin(now, Duration::from_secs(1));
            (pause.end - now).as_secs()
        };
        assert_eq!([(); 7].map(|()| intervals()), [1, 2, 4, 8, 16, 32, 32]);
    }
}
