//! The limit of all heaps together.

#![forbid(unsafe_code)]

use super::Heaps;
use crate::{before_refusal::Callback, parts::Parts};

impl<P: Parts> Heaps<P> {
    /// Sets a callback, which is called before a request is refused because of the hard limit.
    ///
    /// The callback may allocate memory, and may free memory so that the request can succeed. If it
    /// returns true, the request that exceeded the hard limit is tried again. If the callback
    /// panics, the process is aborted, because an allocation must not unwind.
    pub fn before_refusal(&self, callback: Callback) {
        self.shared.before_refusal.set(callback);
    }

    /// Calls the callback if a limit has refused this thread's request to map memory.
    ///
    /// Each refused request leads to at most one call of the callback. The function does not call
    /// the callback if this thread is already running it.
    ///
    /// Returns true if the callback was called and the request should be repeated.
    ///
    /// The caller must not hold a borrow of a heap, because the callback may use that heap.
    #[cold]
    pub(crate) fn ask_before_refusal(&self) -> bool {
        self.shared.before_refusal.ask()
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use std::thread;

    use raw_mem::{Limits, Malloc, MmapArenas};

    use super::*;
    use crate::ThreadGeometry;

    static HEAPS: Heaps<(MmapArenas, Malloc, ThreadGeometry)> =
        Heaps::new(MmapArenas::new(), Malloc);

    /// Regression test: the heaps forgot that they had refused a thread's request when they served
    /// a request of another thread.
    #[test]
    fn the_callback_runs_for_a_refused_thread_after_another_thread_was_served() {
        HEAPS.before_refusal(|reached| reached.requested > 100 << 20);
        HEAPS.lock_source().set_limits(Limits::hard(50 << 20));
        assert!(HEAPS.alloc_large(100 << 20, 16).is_none());
        thread::spawn(|| {
            assert!(HEAPS.alloc_large(1 << 20, 16).is_some());
            assert!(!HEAPS.ask_before_refusal(), "this thread was not refused");
        })
        .join()
        .unwrap();
        assert!(HEAPS.ask_before_refusal());
        assert!(!HEAPS.ask_before_refusal(), "the callback runs once for a refusal");
    }
}
