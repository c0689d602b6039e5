//! When to search for heaps that ended threads have left open.

#![forbid(unsafe_code)]

use sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Decides when a thread searches all heaps for one that a thread has left open.
///
/// A search takes O(heaps) time, and hardly any program leaves heaps open. A search is therefore
/// due only if the number of heaps has grown by an eighth since the last search that found nothing.
/// All searches of a program whose threads leave no heap open then take O(1) time for each heap.
///
/// In a program whose threads leave heaps open, a search remains due while searches find heaps. At
/// most about an eighth of the heaps is then wasted.
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

    /// Returns true if the caller should search. No other thread then searches at the same time,
    /// unless many heaps are created meanwhile.
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
