//! The heaps of this process: one for each thread, and one for each [`OwnedHeap`].
//!
//! Each thread has a thread-local pointer to its heap. If the thread has no heap, the pointer
//! refers to the static `NO_HEAP`. This static behaves like a heap without free blocks, so fast
//! paths need not check whether the thread has a heap.
//!
//! When a thread ends, a destructor closes its heap. Later requests by the thread open a heap
//! temporarily.

mod any_size;
mod decay;
mod exit;
#[cfg(unix)]
mod fork;
mod heaps;
mod owned;
mod per_thread;
mod slot;

#[cfg(not(unix))]
mod fork {
    //! Registers no handlers, because this system has no `fork`.

    use super::heaps::{HEAPS, Source};
    use crate::shared_source::SourceGuard;

    pub(super) fn guard() -> bool {
        true
    }

    pub(super) fn lock_source() -> SourceGuard<'static, Source> {
        HEAPS.lock_source()
    }
}

pub use any_size::ThreadMalloc;
pub use heaps::CurrentHeaps;
pub use owned::OwnedHeap;
pub use per_thread::PerThread;
