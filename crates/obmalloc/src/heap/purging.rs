//! When a heap gives free memory inside its arenas back to the system.
//!
//! ```text
//!   page      in use ──────► free ──────► uncarved, or part of a free unit ──────► purged
//!                       the last block     the next sweep finds it       a later sweep finds that
//!                       is freed                                         nobody has used it since
//! ```
//!
//! The slow paths of the heap visit this module. Every few visits, it looks at the clock. A sweep
//! takes place twice in each decay time. A page that one sweep finds free, and that is still free at
//! the next one, is purged. Memory is therefore given back after half the decay time at the earliest,
//! and after the decay time if the program visits often enough.
//!
//! If a program uses much of what was purged again, the next sweeps do not purge.

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

/// A sweep takes at most one part in this number of the time.
const PART_OF_TIME: u32 = 64;

/// The largest number of sweeps of which only one purges.
const LONGEST_PAUSE: u32 = 32;

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

    /// Gives memory back that was free for the time `decay`, or for half of it.
    ///
    /// `clock` returns the time since an arbitrary start. If `decay` is zero, the heap gives memory
    /// back as soon as it notices that it is free.
    pub const fn after(decay: Duration, clock: fn() -> Duration) -> Self {
        Self { decay, limit: usize::MAX, clock: Some(clock) }
    }

    /// Gives free units of 16 KiB back earlier if they have more than `bytes` bytes together.
    #[must_use]
    pub const fn with_limit(self, bytes: usize) -> Self {
        Self { limit: bytes, ..self }
    }
}

/// The state of a heap's policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Purging {
    policy: PurgePolicy,
    /// The number of slow paths until the next look at the clock.
    visits: u32,
    /// When the next sweep is due.
    due: Duration,
    /// When a sweep may look for free pages in pools again.
    walk_due: Duration,
    /// The number of sweeps until one purges, and of those between two that purge.
    pause: (u32, u32),
    /// The number of pages that were purged last.
    purged: usize,
}

impl Purging {
    pub(crate) const NEVER: Self = Self {
        policy: PurgePolicy::NEVER,
        visits: VISITS,
        due: Duration::ZERO,
        walk_due: Duration::ZERO,
        pause: (0, 0),
        purged: 0,
    };

    /// Returns true if the present sweep should purge. `reused` of the purged pages are used again.
    fn is_worthwhile(&mut self, reused: usize) -> bool {
        let (left, length) = &mut self.pause;
        if reused * PART_REUSED > self.purged {
            *length = (*length * 2 + 1).min(LONGEST_PAUSE);
            *left = *length;
            self.purged = 0;
        }
        if *left > 0 {
            *left -= 1;
            return false;
        }
        *length /= 2;
        true
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

    /// Looks at the clock once in a while. The slow paths of the heap call this function.
    #[inline(always)]
    pub(crate) fn visit(&mut self) {
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
        if now >= self.purging.due {
            self.purging.due = now + self.purging.policy.decay / 2;
            self.sweep(now, clock);
        }
    }

    /// Gives back what has been free since the last sweep, and finds out what is free now.
    fn sweep(&mut self, now: Duration, clock: fn() -> Duration) {
        while let Some(pool) = self.empty.end_idle::<G>(&mut self.used, &mut self.arenas) {
            self.free_pool(pool);
        }
        self.empty.note_idle();
        self.unmap_excess();
        self.source.decay();
        let is_eager = self.purging.policy.decay.is_zero();
        if is_eager {
            self.purge_free_pages();
            return;
        }
        let (mut reused, mut retained) = (0, 0);
        self.arenas.visit(|arena| {
            reused += arena.take_reused();
            retained += arena.retained_bytes::<G>();
        });
        if self.purging.is_worthwhile(reused) {
            self.purging.purged = self.purge(retained <= self.purging.policy.limit) / PAGE;
        }
        self.arenas.visit(|arena| arena.note_idle());
        if now >= self.purging.walk_due {
            self.arenas.visit(|arena| arena.uncarve::<G>());
            let took = clock().saturating_sub(now);
            self.purging.walk_due = now + took * PART_OF_TIME;
        }
    }
}
