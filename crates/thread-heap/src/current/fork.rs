//! A fork while another thread is in the source of arenas.
//!
//! ```text
//!   forking thread     prepare: close the source ── fork ──┬── parent: open it
//!   another thread   …maps an arena… ──┘ waited for        └── child: open it, of owners that are gone
//! ```
//!
//! Handlers that were registered before the first heap was opened run while the source is closed: in
//! the forking thread they must not make a heap ask for an arena or give one back, and must not wait
//! for a thread that may.
//!
//! The child has only the forking thread. Two locks are held across the fork and unlocked in the
//! child. Holding the source's lock makes the child's copy of the source consistent. Holding the
//! lock of the thread that takes over inboxes ensures that no block is lost while it is out of its
//! inbox.

use std::{cell::Cell, mem::ManuallyDrop};

use raw_mem::{MmapArenas, RetainingArenas};
use sync::{
    MutexGuard,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use super::{HEAPS, slot};
use crate::heaps::SourceGuard;

/// The handlers are registered.
static GUARDED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The source of arenas, closed by this thread for a fork.
    static CLOSED: Cell<Option<Closed>> = const { Cell::new(None) };
}

/// The source, kept closed.
struct Closed {
    /// Not dropped with its thread, so that a thread needs no destructor for it.
    guard: ManuallyDrop<SourceGuard<'static, RetainingArenas<MmapArenas>>>,
    /// Prevents takeovers of inboxes, because the child would lose the blocks that were taken out.
    takeovers: ManuallyDrop<MutexGuard<'static, ()>>,
    /// How often it was closed: threads that open the first heaps of a process at the same time
    /// each register the handlers.
    times: u32,
}

/// Registers the handlers unless they are registered already. It must be called before a heap is
/// opened. Returns false if there is no memory for the handlers; the next call tries again.
pub(super) fn guard_forks() -> bool {
    if GUARDED.load(Relaxed) {
        return true;
    }
    // SAFETY: the handlers take no arguments, return, and stay while this code is loaded.
    let outcome = unsafe { libc::pthread_atfork(Some(prepare), Some(open), Some(open_in_child)) };
    if outcome == 0 {
        GUARDED.store(true, Relaxed);
    }
    outcome == 0
}

extern "C" fn prepare() {
    let closed = CLOSED.take().unwrap_or_else(|| {
        // In this order: a takeover needs the source.
        let takeovers = ManuallyDrop::new(HEAPS.pause_takeovers());
        let guard = ManuallyDrop::new(HEAPS.close_source());
        Closed { guard, takeovers, times: 0 }
    });
    CLOSED.set(Some(Closed { times: closed.times + 1, ..closed }));
}

extern "C" fn open() {
    match CLOSED.take() {
        Some(closed) if closed.times > 1 => {
            CLOSED.set(Some(Closed { times: closed.times - 1, ..closed }));
        }
        Some(closed) => {
            drop(ManuallyDrop::into_inner(closed.guard));
            drop(ManuallyDrop::into_inner(closed.takeovers));
        }
        None => {}
    }
}

/// What the heaps of the other threads keep is lost, and no reason to keep less.
///
/// Threads of the child may get the numbers of threads that exist only in the parent. Their heaps
/// may be inconsistent, so they must not be found by these numbers.
extern "C" fn open_in_child() {
    HEAPS.forget_threads_but(slot::thread());
    if let Some(mut closed) = CLOSED.take() {
        // SAFETY: the slot has the heap that this thread owns, or the one without arenas.
        let of_thread = unsafe { slot::get().retained_arenas() };
        // SAFETY: the child of a fork has this thread only.
        let of_others = unsafe { HEAPS.retained_arenas_of_survivors() };
        closed.guard.limit_users_to(of_thread + of_others);
        CLOSED.set(Some(closed));
    }
    open();
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{Receiver, channel},
        thread,
        time::Duration,
    };

    use raw_mem::ArenaSource;

    use super::*;
    use crate::ThreadGeometry;

    /// A message that comes when another thread gets at the source.
    fn another_threads_turn() -> Receiver<()> {
        let (sender, receiver) = channel();
        thread::spawn(move || {
            drop(HEAPS.close_source());
            sender.send(())
        });
        receiver
    }

    /// mutants 20: the handlers were registered again for each heap.
    #[test]
    fn handlers_are_registered_once() {
        assert!(guard_forks());
        assert!(GUARDED.load(Relaxed));
    }

    #[test]
    fn a_child_forgets_what_the_heaps_of_other_threads_keep() {
        let size = obmalloc::Shape::<ThreadGeometry>::ARENA;
        prepare();
        let mut closed = CLOSED.take().expect("it is closed");
        let first = closed.guard.source().map(size).expect("there is memory");
        // SAFETY: it was mapped above, and nobody uses it.
        unsafe { closed.guard.source().unmap(first, size) };
        // One that came back and is asked for again: from now on one may be retained.
        let arena = closed.guard.source().map(size).expect("there is memory");
        assert_eq!(closed.guard.source().retain(0, 1), 1);
        let kept = closed.guard.retained();
        CLOSED.set(Some(closed));
        open_in_child();
        let mut source = HEAPS.close_source();
        assert_eq!(source.retained(), kept - 1);
        // SAFETY: it was mapped above, and nobody uses it.
        unsafe { source.source().unmap(arena, size) };
    }

    #[test]
    fn handlers_registered_twice_close_once_and_open_once() {
        prepare();
        prepare();
        let turn = another_threads_turn();
        open();
        assert!(turn.recv_timeout(Duration::from_millis(100)).is_err(), "it was opened too early");
        open();
        turn.recv_timeout(Duration::from_secs(60)).expect("it is open again");
    }
}
