//! The heaps of this process: one for each thread, and those that belong to a value.
//!
//! ```text
//!   a thread's life:   NO_HEAP ──first block──► its heap ──destructor of our key──► NO_HEAP
//! ```
//!
//! A thread without a heap points to `NO_HEAP`, which never has an arena. `NO_HEAP` has no free
//! block, and no block belongs to it, so the fast paths need no test. After the destructor has run,
//! later destructors of the thread may still allocate and free. Each such request opens a heap and
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
    //! No process is forked on this system.

    pub(super) fn guard() -> bool {
        true
    }
}

pub use heaps::CurrentHeaps;
pub use owned::OwnedHeap;
pub use per_thread::PerThread;
