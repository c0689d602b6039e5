//! The heaps of this process: one for each thread, and one for each [`OwnedHeap`].
//!
//! ```text
//!   a thread's life:   NO_HEAP ──first block──► its heap ──destructor of our key──► NO_HEAP
//! ```
//!
//! Every thread has a thread-local pointer to its heap. While a thread has no heap, the pointer
//! leads to the static `NO_HEAP`, which never has memory.
//!
//! The fast paths need no test for a missing heap, because `NO_HEAP` behaves like a heap whose free
//! lists are empty.
//!
//! When a thread ends, a destructor closes its heap. Each later request of the same thread opens a
//! heap and closes it again.

mod exit;
#[cfg(unix)]
mod fork;
mod heaps;
mod owned;
mod per_thread;
mod slot;

#[cfg(not(unix))]
mod fork {
    //! Does nothing, because this system has no `fork`.

    pub(super) fn guard() -> bool {
        true
    }
}

pub use heaps::CurrentHeaps;
pub use owned::OwnedHeap;
pub use per_thread::PerThread;
