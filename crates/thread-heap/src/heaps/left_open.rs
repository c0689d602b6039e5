//! When to search for heaps that ended threads have left open.

#![forbid(unsafe_code)]

use sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Decides when a thread searches all heaps for one that a thread has left open.
///
/// A thread leaves its heap open if it ends without closing the heap, which happens in few
/// programs. A search takes O(heaps) time. After a search that has found nothing, the next one is
/// therefore due only when the number of heaps has grown by an eighth. All searches together then
/// take O(1) time for each heap that is created.
///
/// After a search that has found a heap, the next one is due at once. A program whose threads leave
/// heaps open therefore loses at most about an eighth of all heaps.
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
    /// The next search is due when the number of heaps has grown by an eighth, or when this search
    /// finds a heap, so searches rarely overlap.
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
