//! The source of arenas that all heaps share.

#![forbid(unsafe_code)]

use std::fmt;

use obmalloc::ArenaMap;
use raw_mem::{ArenaSource, RetainingArenas};
use sync::{Mutex, MutexGuard, atomic::AtomicBool};

use crate::parts::Parts;

/// An arena source behind a lock, and the map that contains every arena of every heap that uses
/// this source.
pub(crate) struct SharedSource<P: Parts> {
    source: Mutex<P::Source>,
    lower: P::Lower,
    map: ArenaMap<P::Geometry>,
    /// True if the system has refused to purge pages before. Takeovers then no longer try to purge
    /// pages.
    pub(crate) purges_are_refused: AtomicBool,
}

impl<P: Parts> SharedSource<P> {
    sync::const_unless_model! {
        /// Wraps `source`. The metadata of the heaps and of the arena map is allocated from
        /// `lower`.
        pub(crate) fn new(source: P::Source, lower: P::Lower) -> Self {
            Self {
                source: Mutex::new(source),
                lower,
                map: ArenaMap::new(),
                purges_are_refused: AtomicBool::new(false),
            }
        }
    }

    /// Locks the source, and returns the guard.
    pub(crate) fn source(&self) -> MutexGuard<'_, P::Source> {
        sync::lock(&self.source)
    }

    /// Returns the metadata allocator.
    pub(crate) fn lower(&self) -> &P::Lower {
        &self.lower
    }

    /// Returns the map that contains every arena of every heap.
    pub(crate) fn map(&self) -> &ArenaMap<P::Geometry> {
        &self.map
    }

    /// Returns the map, and the allocator from which the map's nodes were allocated. At the end of
    /// a model, both are needed to free the nodes.
    #[cfg(test)]
    pub(crate) fn map_mut(&mut self) -> (&mut ArenaMap<P::Geometry>, &P::Lower) {
        (&mut self.map, &self.lower)
    }
}

/// A guard that keeps the shared source of arenas locked until the guard is dropped.
///
/// The guard does not give access to the source itself. With a mutable reference, safe code could
/// replace the source and thereby drop it. But the arenas of every heap may become invalid when the
/// source from which they came is dropped.
#[must_use = "the source is unlocked when the guard is dropped"]
pub struct SourceGuard<'a, S> {
    source: MutexGuard<'a, S>,
}

impl<'a, S: ArenaSource> SourceGuard<'a, S> {
    pub(crate) fn new(source: MutexGuard<'a, S>) -> Self {
        Self { source }
    }

    /// Unmaps the arenas that the source retains.
    pub fn trim(&mut self) {
        self.source.trim();
    }

    /// Returns the source, for tests that unmap only the arenas that they mapped.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn source(&mut self) -> &mut S {
        &mut self.source
    }
}

impl<S: ArenaSource> SourceGuard<'_, RetainingArenas<S>> {
    /// Returns how many empty arenas the source and the heaps together retain instead of unmapping
    /// them.
    pub fn retained(&self) -> usize {
        self.source.retained()
    }

    /// Sets the number of arenas that the source counts as retained by heaps to `by_heaps`, unless
    /// the number is already lower.
    pub(crate) fn limit_retained_by_heaps(&mut self, by_heaps: usize) {
        self.source.limit_users_to(by_heaps);
    }
}

impl<S> fmt::Debug for SourceGuard<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SourceGuard(..)")
    }
}

/// Regression test: safe code once could replace the arena source through its guard. This dropped
/// the old source, which unmapped arenas that were in use (defect D2).
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
