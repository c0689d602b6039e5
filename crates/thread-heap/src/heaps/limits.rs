//! The limit of all heaps together.

#![forbid(unsafe_code)]

use super::Heaps;
use crate::{before_refusal::Callback, parts::Parts};

impl<P: Parts> Heaps<P> {
    /// Sets a callback, which is called before a request is refused because of the hard limit.
    ///
    /// The callback may allocate and free memory. If it returns true, the request is tried again.
    /// If it panics, the process is aborted, because an allocation must not unwind.
    pub fn before_refusal(&self, callback: Callback) {
        self.shared.before_refusal.set(callback);
    }

    /// Calls the callback if a limit caused the last refusal of a request of this thread. Returns
    /// true if the request should be repeated.
    ///
    /// The caller must not hold a borrow of a heap, because the callback may use that heap.
    #[cold]
    pub(crate) fn ask_before_refusal(&self) -> bool {
        self.shared.before_refusal.ask()
    }
}
