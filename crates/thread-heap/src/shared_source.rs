//! The source of arenas that all heaps share.

#![forbid(unsafe_code)]

use std::fmt;

use obmalloc::{ArenaList, ArenaMap};
use raw_mem::{
    ArenaSource, HugePages, Limits, ReservedArenas, RetainingArenas, Usage, warn_of_soft_limit,
};
use sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize},
};

use crate::{before_refusal::BeforeRefusal, large_counts::LargeCounts, parts::Parts};

/// The state that is protected by the lock of the source.
pub(crate) struct Locked<S> {
    pub(crate) source: S,
    /// The arenas of all heaps.
    pub(crate) arenas: ArenaList,
    /// The total size of all arenas of heaps and all large blocks.
    pub(crate) usage: Usage,
    /// How many times an arena or a large mapping, or a part of one, was returned to the source.
    pub(crate) returned: usize,
}

impl<S> Locked<S> {
    /// Records that `bytes` bytes were returned to the source, or are about to be.
    pub(crate) fn note_returned(&mut self, bytes: usize) {
        self.usage.remove(bytes);
        self.returned = self.returned.wrapping_add(1);
    }

    /// Records that `bytes` bytes were mapped. Warns if that exceeds the soft limit for the first
    /// time.
    pub(crate) fn note_mapped(&mut self, bytes: usize) {
        if self.usage.add(bytes) {
            warn_of_soft_limit(&self.usage);
        }
    }
}

/// An arena source behind a lock, with the map of its arenas.
pub(crate) struct SharedSource<P: Parts> {
    locked: Mutex<Locked<P::Source>>,
    lower: P::Lower,
    map: ArenaMap<P::Geometry>,
    pub(crate) large: LargeCounts,
    /// The number of bytes that precede the large blocks in use in their mappings, minus the
    /// usual [`OVERHEAD`](obmalloc::LargeBlock::OVERHEAD) of each block.
    ///
    /// Only blocks with a special alignment contribute to this number.
    pub(crate) large_alignment: AtomicUsize,
    pub(crate) before_refusal: BeforeRefusal,
    /// True after the system has refused to purge pages. We then never try again.
    pub(crate) purges_are_refused: AtomicBool,
}

impl<P: Parts> SharedSource<P> {
    sync::const_unless_model! {
        /// Wraps `source`. The metadata of the heaps and of the arena map comes from `lower`.
        pub(crate) fn new(source: P::Source, lower: P::Lower) -> Self {
            Self {
                locked: Mutex::new(Locked {
                    source,
                    arenas: ArenaList::new(),
                    usage: Usage::new(Limits::NONE),
                    returned: 0,
                }),
                lower,
                map: ArenaMap::new(),
                large: LargeCounts::new(),
                large_alignment: AtomicUsize::new(0),
                before_refusal: BeforeRefusal::new(),
                purges_are_refused: AtomicBool::new(false),
            }
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Locked<P::Source>> {
        sync::lock(&self.locked)
    }

    /// Like [`lock`](Self::lock), but returns `None` instead of waiting.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, Locked<P::Source>>> {
        sync::try_lock(&self.locked)
    }

    pub(crate) fn lower(&self) -> &P::Lower {
        &self.lower
    }

    pub(crate) fn map(&self) -> &ArenaMap<P::Geometry> {
        &self.map
    }

    #[cfg(test)]
    pub(crate) fn map_mut(&mut self) -> (&mut ArenaMap<P::Geometry>, &P::Lower) {
        (&mut self.map, &self.lower)
    }
}

/// A guard that keeps the shared arena source locked.
///
/// The guard gives no access to the source, because safe code could then replace the source and
/// invalidate arenas in use.
#[must_use = "the source is unlocked when the guard is dropped"]
pub struct SourceGuard<'a, S> {
    locked: MutexGuard<'a, Locked<S>>,
}

impl<'a, S: ArenaSource> SourceGuard<'a, S> {
    pub(crate) fn new(locked: MutexGuard<'a, Locked<S>>) -> Self {
        Self { locked }
    }

    /// Unmaps the arenas that the source retains. Returns their size in bytes.
    pub fn trim(&mut self) -> usize {
        self.locked.source.trim()
    }

    /// Keeps the reserved range of addresses from growing beyond `bytes` bytes.
    pub fn reserve_at_most(&mut self, bytes: usize) {
        self.locked.source.reserve_at_most(bytes);
    }

    /// Sets whether the source uses huge pages.
    pub fn use_huge_pages(&mut self, huge: HugePages) {
        self.locked.source.use_huge_pages(huge);
    }

    /// Replaces the limits on the memory of all heaps. Memory that is already in use is not
    /// affected.
    pub fn set_limits(&mut self, limits: Limits) {
        self.locked.usage.set_limits(limits);
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn source(&mut self) -> &mut S {
        &mut self.locked.source
    }
}

impl<S: ArenaSource> SourceGuard<'_, RetainingArenas<S>> {
    /// Returns the number of empty arenas that the source and the heaps retain.
    pub fn retained(&self) -> usize {
        self.locked.source.retained()
    }

    /// Lowers the number of arenas that the source counts as retained by heaps to at most
    /// `by_heaps`.
    pub(crate) fn limit_retained_by_heaps(&mut self, by_heaps: usize) {
        self.locked.source.limit_users_to(by_heaps);
    }
}

impl<S: ArenaSource> SourceGuard<'_, RetainingArenas<ReservedArenas<S>>> {
    /// Lowers the number of slots of large mappings that the source counts as retained by heaps to
    /// at most `slots`.
    pub(crate) fn limit_large_retained_by_heaps(&mut self, slots: usize) {
        self.locked.source.limit_large_users_to(slots);
    }
}

impl<S> fmt::Debug for SourceGuard<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SourceGuard(..)")
    }
}

/// Regression test: a guard must not let safe code replace the source of arenas in use (defect D2).
///
/// ```
/// # use obmalloc::Pools16K;
/// # use raw_mem::{Malloc, MmapArenas};
/// # use thread_heap::Heaps;
/// static HEAPS: Heaps<(MmapArenas, Malloc, Pools16K)> = Heaps::new(MmapArenas::new(), Malloc);
/// HEAPS.lock_source().trim();
/// ```
///
/// ```compile_fail,E0614
/// # use obmalloc::Pools16K;
/// # use raw_mem::{Malloc, MmapArenas};
/// # use thread_heap::Heaps;
/// static HEAPS: Heaps<(MmapArenas, Malloc, Pools16K)> = Heaps::new(MmapArenas::new(), Malloc);
/// *HEAPS.lock_source() = MmapArenas::new();
/// ```
#[cfg(doctest)]
struct AGuardDoesNotLendItsSource;
