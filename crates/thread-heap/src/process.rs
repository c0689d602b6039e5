//! The heaps of this process: one for each thread, and one for each [`OwnedHeap`].
//!
//! ```text
//!   a thread's life:   NO_HEAP ──first block──► its heap ──destructor of our key──► NO_HEAP
//! ```
//!
//! Every thread has a thread-local pointer to its heap. While a thread has no heap, the pointer
//! leads to `NO_HEAP`. This heap never has an arena, so it has no free block, and no block belongs
//! to it. The fast paths therefore need not test whether the thread has a heap.
//!
//! When a thread ends, the destructor of our key closes its heap. Later destructors of the same
//! thread may still allocate and free. Each of these requests opens a heap and closes it again.

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
