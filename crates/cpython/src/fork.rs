//! A fork while another thread is inside the heap.
//!
//! ```text
//!   forking thread        prepare: close the heap ── fork ──┬── parent: open it
//!   another thread   …inside… ──┘ waited for                └── child: open it
//! ```
//!
//! The child has the forking thread alone. With the heap closed around the fork, no other thread
//! was inside, so the child's copy is whole and open: it can allocate at once.
//!
//! Where the GIL guards the heap there is nothing to do: the thread that forks holds the GIL, as
//! CPython demands of it for its own heap.

use std::{cell::UnsafeCell, sync::OnceLock};

use obmalloc::{Locked, LockedGuard};

use crate::install::SmallHeap;

/// The heap to close, and the guard that keeps it closed during a fork.
struct Forks {
    heap: &'static Locked<SmallHeap>,
    /// # Invariant
    ///
    /// Touched only by the thread that has the heap closed.
    guard: UnsafeCell<Option<LockedGuard<'static, SmallHeap>>>,
}

// SAFETY: `guard`'s invariant: the heap's lock makes it one thread's at a time.
unsafe impl Sync for Forks {}
// SAFETY: the guard is put in and taken out by one thread; in a child, by the copy of that thread.
unsafe impl Send for Forks {}

static FORKS: OnceLock<Forks> = OnceLock::new();

/// Closes `heap` around every fork from now on.
pub(crate) fn close_around(heap: &'static Locked<SmallHeap>) {
    FORKS.get_or_init(|| {
        // SAFETY: the handlers live as long as this library, which is never unloaded. Without
        // memory for them forks are as unguarded as they were.
        unsafe { libc::pthread_atfork(Some(prepare), Some(open), Some(open)) };
        Forks { heap, guard: UnsafeCell::new(None) }
    });
}

extern "C" fn prepare() {
    let Some(forks) = FORKS.get() else { return };
    let guard = forks.heap.close();
    // SAFETY: `guard`'s invariant: this thread has just closed the heap.
    unsafe { *forks.guard.get() = Some(guard) };
}

extern "C" fn open() {
    let Some(forks) = FORKS.get() else { return };
    // SAFETY: `guard`'s invariant: this thread closed the heap in `prepare`, or is the copy of
    // the thread that did.
    drop(unsafe { (*forks.guard.get()).take() });
}
