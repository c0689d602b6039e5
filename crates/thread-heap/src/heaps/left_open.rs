//! When to search for heaps that ended threads have left open.

#![forbid(unsafe_code)]

use sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Decides when a thread searches for heaps that ended threads have left open.
///
/// A thread leaves its heap open if it ends without closing the heap, which happens in few
/// programs. Each search for such heaps visits all heaps. If a search finds none, the next search
/// is therefore due only when the number of heaps has grown by an eighth. These searches together
/// visit at most about nine heaps for each heap that is created.
///
/// If a search finds a heap that was left open, the next search is due at once. If a search finds
/// none, threads create heaps without a search until the number of heaps has grown by an eighth.
/// Heaps that threads leave open meanwhile are not reused before that. A program therefore has at
/// most about an eighth more heaps than it needs.
#[derive(Debug)]
pub(crate) struct LeftOpen {
    /// The number of heaps.
    heaps: AtomicUsize,
    /// The number of heaps at which the next search is due.
    due: AtomicUsize,
}

impl LeftOpen {
    sync::const_unless_model! {
        pub(super) fn new() -> Self {
            Self { heaps: AtomicUsize::new(0), due: AtomicUsize::new(0) }
        }
    }

    /// Notes that a heap was created.
    pub(super) fn note_created(&self) {
        self.heaps.fetch_add(1, Relaxed);
    }

    /// Returns true if the caller should search now.
    ///
    /// If the function returns true, it also postpones the next search until the number of heaps
    /// has grown by an eighth. If the caller then finds a heap that was left open, it must
    /// call [`note_found`](Self::note_found), so that another search is due at once.
    pub(super) fn begin_search(&self) -> bool {
        let (heaps, due) = (self.heaps.load(Relaxed), self.due.load(Relaxed));
        let next = heaps.saturating_add(heaps / 8).saturating_add(1);
        heaps >= due && self.due.compare_exchange(due, next, Relaxed, Relaxed).is_ok()
    }

    /// Notes that a search has found a heap that was left open.
    pub(super) fn note_found(&self) {
        self.due.store(0, Relaxed);
    }
}
