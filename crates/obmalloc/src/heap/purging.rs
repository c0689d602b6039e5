//! When a heap gives free memory inside its arenas back to the system.
//!
//! ```text
//!   page      in use ──────► free ──────► uncarved, or part of a free unit ──────► purged
//!                       the last block     the next sweep finds it       a later sweep finds that
//!                       is freed                                         nobody has used it since
//! ```
//!
//! The slow paths of the heap visit this module. Every few visits, it looks at the clock.
//!
//! - A *sweep* takes place every two fifths of the decay time. A page that one sweep finds free, and
//!   that is still free at the next one, is purged. Memory is therefore given back within the decay
//!   time if the program visits often enough, and not before two fifths of it.
//! - If a quarter of the heap becomes free at once, it is purged at once. So is the first memory
//!   that a program frees in the source of arenas.
//!
//! If a program uses much of what was purged again, that was a mistake. Then nothing is purged for the
//! same reason for a while, which becomes twice as long with each mistake.

#![forbid(unsafe_code)]

use core::time::Duration;

/// How many slow paths a heap takes between two looks at the clock.
pub(crate) const VISITS: u32 = 64;

/// A walk over the free blocks takes at most one part in this number of the time.
const PART_OF_TIME: u32 = 64;

/// A walk may take one part in this number of the time if part of the heap has become free.
const PART_OF_TIME_IF_LOOSER: u32 = 4;

/// The longest pause after a mistake, in intervals between two sweeps.
const LONGEST_PAUSE: u32 = 32;

/// At least this many units must become free, or nearly free, before they are purged at once.
const MANY_UNITS: usize = 1024;

/// At least one part in this number of all units must become free, or nearly free, before they are
/// purged at once.
const LARGE_PART: usize = 4;

/// Purged pages were worth it if at most one part in this number was used again.
const PART_REUSED: usize = 4;

/// When a heap gives free memory inside its arenas back to the system by itself.
///
/// This concerns free parts of arenas that are in use. The [source](raw_mem::ArenaSource) decides about free
/// arenas. A heap of a geometry of CPython never gives back parts of an arena.
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
/// // The heap would give the memory back by itself if it were used. This gives it back at once.
/// assert!(heap.trim() >= 20_000);
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PurgePolicy {
    pub(crate) decay: Duration,
    pub(crate) limit: usize,
    pub(crate) clock: Option<fn() -> Duration>,
}

impl PurgePolicy {
    /// Gives back nothing unless [`Heap::trim`](crate::Heap::trim) is called. Every new heap has this policy.
    pub const NEVER: Self = Self { decay: Duration::ZERO, limit: usize::MAX, clock: None };

    /// Gives memory back that was free for the time `decay`, or for two fifths of it.
    ///
    /// `clock` returns the time since an arbitrary start. If `decay` is zero, the heap gives memory
    /// back as soon as it notices that it is free.
    pub const fn after(decay: Duration, clock: fn() -> Duration) -> Self {
        Self { decay, limit: usize::MAX, clock: Some(clock) }
    }

    /// Returns the time between two sweeps. Two of them are a little shorter than the decay time.
    pub(crate) fn interval(&self) -> Duration {
        self.decay * 2 / 5
    }

    /// Gives free units of 16 KiB back earlier if they have more than `bytes` bytes together.
    #[must_use]
    pub const fn with_limit(self, bytes: usize) -> Self {
        Self { limit: bytes, ..self }
    }
}

/// Which free units are purged. Uncarved pages always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    /// Those that were free at the last sweep.
    Idle,
    /// All, but not those of free arenas, because the source lets the heap retain these.
    InArenasInUse,
}

/// Why memory is purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It has been free for a while.
    Idle,
    /// Much of the heap has become free.
    Drop,
}

/// A time in which nothing is purged, because it was a mistake before.
#[derive(Clone, Copy, Debug)]
struct Pause {
    end: Duration,
    length: Duration,
}

impl Pause {
    const NONE: Self = Self { end: Duration::ZERO, length: Duration::ZERO };

    /// Begins a pause that is twice as long as the last one.
    fn begin(&mut self, now: Duration, shortest: Duration) {
        self.length = (self.length * 2).clamp(shortest, shortest * LONGEST_PAUSE);
        self.end = now + self.length;
    }
}

/// The state of a heap's policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Purging {
    pub(crate) policy: PurgePolicy,
    /// The number of slow paths until the next look at the clock.
    pub(crate) visits: u32,
    /// How many more units have become free or nearly free than used or full, since the last walk
    /// or since all that had become free was used again.
    pub(crate) loosened: usize,
    /// When the next sweep is due, or zero before the first look at the clock.
    pub(crate) due: Duration,
    /// When the last walk over the free blocks began, and how long it took.
    pub(crate) walk: (Duration, Duration),
    /// The pauses for the two reasons.
    pauses: [Pause; 2],
    /// The number of pages that were purged last, and why. The number is 0 after a mistake.
    purged: (usize, Reason),
}

impl Purging {
    pub(crate) const NEVER: Self = Self {
        policy: PurgePolicy::NEVER,
        visits: VISITS,
        loosened: 0,
        due: Duration::ZERO,
        walk: (Duration::ZERO, Duration::ZERO),
        pauses: [Pause::NONE; 2],
        purged: (0, Reason::Idle),
    };

    pub(crate) const fn new(policy: PurgePolicy) -> Self {
        Self { policy, ..Self::NEVER }
    }

    /// Notes that `units` units have become free, or nearly free.
    #[inline]
    pub(crate) fn note_loosened(&mut self, units: usize) {
        self.loosened += units;
    }

    /// Notes that `units` units are used or full.
    #[inline]
    pub(crate) fn note_tightened(&mut self, units: usize) {
        self.loosened = self.loosened.saturating_sub(units);
    }

    /// Returns true if the heap, which has `units` units, has become much emptier.
    pub(crate) fn is_much_looser(&self, units: usize) -> bool {
        self.loosened >= (units / LARGE_PART).max(MANY_UNITS)
    }

    /// Returns true if it is time for a walk over the free blocks of the heap's `units` units.
    pub(crate) fn may_walk(&self, units: usize, now: Duration) -> bool {
        let is_looser = self.loosened * PART_OF_TIME as usize >= units;
        let part = if is_looser { PART_OF_TIME_IF_LOOSER } else { PART_OF_TIME };
        let (start, took) = self.walk;
        now >= start + took * part
    }

    /// Notes that `reused` of the purged pages are used again.
    pub(crate) fn judge(&mut self, reused: usize, now: Duration) {
        let (purged, reason) = self.purged;
        if purged > 0 && reused * PART_REUSED > purged {
            self.pauses[reason as usize].begin(now, self.policy.interval());
            self.purged.0 = 0;
        }
    }

    pub(crate) fn may_purge(&self, reason: Reason, now: Duration) -> bool {
        now >= self.pauses[reason as usize].end
    }

    /// Notes that `pages` pages were purged.
    pub(crate) fn note_purged(&mut self, pages: usize, reason: Reason) {
        if pages == 0 {
            return;
        }
        if self.purged.0 > 0 {
            // The last purge was no mistake.
            self.pauses[self.purged.1 as usize].length /= 2;
        }
        self.purged = (pages, reason);
    }
}
