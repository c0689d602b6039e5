//! The heaps of this process: one for each thread, and one for each [`OwnedHeap`].
//!
//! ```text
//!   a thread's life:   NO_HEAP ──first block──► its heap ──destructor of our key──► NO_HEAP
//! ```
//!
//! Every thread has a thread-local pointer to its heap. While a thread has no heap, the pointer
//! leads to the static `NO_HEAP`. `NO_HEAP` never has an arena, so it has no free block, and no
//! block belongs to it. The fast paths of allocating and freeing therefore fail with `NO_HEAP` like
//! with a heap whose free list is empty, and need not test whether the thread has a heap.
//!
//! When a thread ends, the C library calls the destructor of a key for thread-specific values that
//! this module has created, and the destructor closes the heap of the thread. Destructors that run
//! later on the same thread may still allocate and free. Each of these requests opens a heap and
//! closes it again.

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
