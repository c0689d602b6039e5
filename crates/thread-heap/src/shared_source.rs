//! The source of arenas that all heaps share.

#![forbid(unsafe_code)]

use std::fmt;

use obmalloc::ArenaMap;
use raw_mem::{ArenaSource, ReservedArenas, RetainingArenas};
use sync::{Mutex, MutexGuard, atomic::AtomicBool};

use crate::{large_counts::LargeCounts, parts::Parts};

/// An arena source behind a lock, with the map of its arenas.
pub(crate) struct SharedSource<P: Parts> {
    source: Mutex<P::Source>,
    lower: P::Lower,
    map: ArenaMap<P::Geometry>,
    pub(crate) large: LargeCounts,
    /// True after the system has refused to purge pages. Nobody then tries again.
    pub(crate) purges_are_refused: AtomicBool,
}

impl<P: Parts> SharedSource<P> {
    sync::const_unless_model! {
        /// Wraps `source`. The metadata of the heaps and of the arena map comes from `lower`.
        pub(crate) fn new(source: P::Source, lower: P::Lower) -> Self {
            Self {
                source: Mutex::new(source),
                lower,
                map: ArenaMap::new(),
                large: LargeCounts::new(),
                purges_are_refused: AtomicBool::new(false),
            }
        }
    }

    pub(crate) fn source(&self) -> MutexGuard<'_, P::Source> {
        sync::lock(&self.source)
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
    source: MutexGuard<'a, S>,
}

impl<'a, S: ArenaSource> SourceGuard<'a, S> {
    pub(crate) fn new(source: MutexGuard<'a, S>) -> Self {
        Self { source }
    }

    /// Unmaps the arenas that the source retains. Returns their size in bytes.
    pub fn trim(&mut self) -> usize {
        self.source.trim()
    }

    /// Keeps the reserved range of addresses from growing beyond `bytes` bytes.
    pub fn reserve_at_most(&mut self, bytes: usize) {
        self.source.reserve_at_most(bytes);
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn source(&mut self) -> &mut S {
        &mut self.source
    }
}

impl<S: ArenaSource> SourceGuard<'_, RetainingArenas<S>> {
    /// Returns the number of empty arenas that the source and the heaps keep for reuse.
    pub fn retained(&self) -> usize {
        self.source.retained()
    }

    /// Limits the number of arenas that the source counts as retained by heaps.
    pub(crate) fn limit_retained_by_heaps(&mut self, by_heaps: usize) {
        self.source.limit_users_to(by_heaps);
    }
}

impl<S: ArenaSource> SourceGuard<'_, RetainingArenas<ReservedArenas<S>>> {
    /// Limits the number of slots of large mappings that the source counts as retained by heaps.
    pub(crate) fn limit_large_retained_by_heaps(&mut self, slots: usize) {
        self.source.limit_large_users_to(slots);
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
