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

use raw_mem::{ArenaSource, MemAlloc};

use crate::{
    arena::pages::PAGE,
    geometry::{Geometry, shape::Shape},
    heap::Heap,
};

/// How many slow paths a heap takes between two looks at the clock.
const VISITS: u32 = 64;

/// A walk over the free blocks takes at most one part in this number of the time.
const PART_OF_TIME: u32 = 64;

/// A walk may take one part in this number of the time if part of the heap has become free.
const PART_OF_TIME_IF_LOOSER: u32 = 4;

/// The longest pause after a mistake, in intervals between two sweeps.
const LONGEST_PAUSE: u32 = 32;

/// At least this many units must become free, or nearly free, before they are purged at once.
const MANY_UNITS: usize = 512;

/// At least one part in this number of all units must become free, or nearly free, before they are
/// purged at once.
const LARGE_PART: usize = 4;

/// Purged pages were worth it if at most one part in this number was used again.
const PART_REUSED: usize = 4;

/// When a heap gives free memory inside its arenas back to the system by itself.
///
/// This concerns free parts of arenas that are in use. The [source](ArenaSource) decides about free
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
    decay: Duration,
    limit: usize,
    clock: Option<fn() -> Duration>,
}

impl PurgePolicy {
    /// Gives back nothing unless [`Heap::trim`] is called. Every new heap has this policy.
    pub const NEVER: Self = Self { decay: Duration::ZERO, limit: usize::MAX, clock: None };

    /// Gives memory back that was free for the time `decay`, or for two fifths of it.
    ///
    /// `clock` returns the time since an arbitrary start. If `decay` is zero, the heap gives memory
    /// back as soon as it notices that it is free.
    pub const fn after(decay: Duration, clock: fn() -> Duration) -> Self {
        Self { decay, limit: usize::MAX, clock: Some(clock) }
    }

    /// Returns the time between two sweeps. Two of them are a little shorter than the decay time.
    fn interval(&self) -> Duration {
        self.decay * 2 / 5
    }

    /// Gives free units of 16 KiB back earlier if they have more than `bytes` bytes together.
    #[must_use]
    pub const fn with_limit(self, bytes: usize) -> Self {
        Self { limit: bytes, ..self }
    }
}

/// Why memory is purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
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
    policy: PurgePolicy,
    /// The number of slow paths until the next look at the clock.
    visits: u32,
    /// How many more units have become free or nearly free than used or full, since the last walk
    /// or since all that had become free was used again.
    loosened: usize,
    /// When the next sweep is due, or zero before the first look at the clock.
    due: Duration,
    /// When the last walk over the free blocks began, and how long it took.
    walk: (Duration, Duration),
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
    fn is_much_looser(&self, units: usize) -> bool {
        self.loosened >= (units / LARGE_PART).max(MANY_UNITS)
    }

    /// Returns true if it is time for a walk over the free blocks of the heap's `units` units.
    fn may_walk(&self, units: usize, now: Duration) -> bool {
        let is_looser = self.loosened * PART_OF_TIME as usize >= units;
        let part = if is_looser { PART_OF_TIME_IF_LOOSER } else { PART_OF_TIME };
        let (start, took) = self.walk;
        now >= start + took * part
    }

    /// Notes that `reused` of the purged pages are used again.
    fn judge(&mut self, reused: usize, now: Duration) {
        let (purged, reason) = self.purged;
        if purged > 0 && reused * PART_REUSED > purged {
            self.pauses[reason as usize].begin(now, self.policy.interval());
            self.purged.0 = 0;
        }
    }

    fn may_purge(&self, reason: Reason, now: Duration) -> bool {
        now >= self.pauses[reason as usize].end
    }

    /// Notes that `pages` pages were purged.
    fn note_purged(&mut self, pages: usize, reason: Reason) {
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

impl<S: ArenaSource, A: MemAlloc, G: Geometry> Heap<S, A, G> {
    /// Determines when the heap gives free memory back by itself.
    pub fn set_purge_policy(&mut self, policy: PurgePolicy) {
        self.purging = Purging { policy, ..Purging::NEVER };
    }

    /// Purges all pages without a block in use. Returns their size in bytes.
    pub(crate) fn purge_free_pages(&mut self) -> usize {
        if !Shape::<G>::PURGES {
            return 0;
        }
        self.arenas.visit(|arena| arena.uncarve::<G>());
        self.purge(false)
    }

    /// Looks at the clock once in a while, and gives back what has been free for long.
    ///
    /// The slow paths of the heap call this function. A program may call it in addition if it makes
    /// few requests. Cheap: it counts down, and does more with every 64th call.
    #[inline(always)]
    pub fn visit(&mut self) {
        if !Shape::<G>::PURGES {
            return;
        }
        self.purging.visits -= 1;
        if self.purging.visits == 0 {
            self.look_at_clock();
        }
    }

    #[cold]
    #[inline(never)]
    fn look_at_clock(&mut self) {
        self.purging.visits = VISITS;
        let Some(clock) = self.purging.policy.clock else { return };
        let now = clock();
        let due = self.purging.due;
        if due.is_zero() || now >= due {
            self.purging.due = now + self.purging.policy.interval();
        }
        if !due.is_zero() && now >= due {
            self.sweep(now, clock);
        } else if self.purging.is_much_looser(self.units()) {
            self.purge_after_drop(now, clock);
        }
    }

    /// Returns the number of units in all arenas.
    fn units(&self) -> usize {
        self.arenas.counts().current * Shape::<G>::POOLS
    }

    /// Gives back what has been free since the last sweep, and finds out what is free now.
    fn sweep(&mut self, now: Duration, clock: fn() -> Duration) {
        while let Some(pool) = self.empty.end_idle::<G>(&mut self.used, &mut self.arenas) {
            self.free_pool(pool);
        }
        self.empty.note_idle();
        self.unmap_excess();
        self.source.decay();
        if self.purging.policy.decay.is_zero() {
            self.purge_free_pages();
            return;
        }
        self.judge_purges(now);
        if self.purging.may_purge(Reason::Idle, now) {
            let mut retained = 0;
            self.arenas.visit(|arena| retained += arena.retained_bytes::<G>());
            let pages = self.purge(retained <= self.purging.policy.limit) / PAGE;
            self.purging.note_purged(pages, Reason::Idle);
        }
        self.arenas.visit(|arena| arena.note_idle());
        if self.purging.may_walk(self.units(), now) {
            self.walk(now, clock);
        }
    }

    /// Gives back what is free now, unless that was a mistake the last time.
    fn purge_after_drop(&mut self, now: Duration, clock: fn() -> Duration) {
        self.purging.loosened = 0;
        self.judge_purges(now);
        if self.purging.may_purge(Reason::Drop, now) {
            self.walk(now, clock);
            let pages = self.purge(false) / PAGE;
            self.purging.note_purged(pages, Reason::Drop);
        }
    }

    fn judge_purges(&mut self, now: Duration) {
        let mut reused = 0;
        self.arenas.visit(|arena| reused += arena.take_reused());
        self.purging.judge(reused, now);
    }

    /// Makes free pages of pools uncarved. They keep their memory.
    fn walk(&mut self, now: Duration, clock: fn() -> Duration) {
        self.purging.loosened = 0;
        self.arenas.visit(|arena| arena.uncarve::<G>());
        self.purging.walk = (now, clock().saturating_sub(now));
    }
}
