//! Forks of a process whose other threads may be inside the source of arenas.
//!
//! ```text
//!   forking thread     prepare: lock ────────── fork ──┬── parent: unlock
//!   another thread   …maps an arena… ──┘ waited for    └── child: correct the figures, unlock
//! ```
//!
//! The child has only the forking thread. Two locks are held across the fork and unlocked in both
//! processes. Holding the source's lock makes the child's copy of the source consistent. Holding
//! the lock of takeovers ensures that no block is lost while it is out of its inbox.
//!
//! Handlers that were registered before the first heap was opened run while the source is locked. On
//! the forking thread they must not make a heap map or unmap an arena, and must not wait for a
//! thread that may.

use std::{cell::Cell, mem::ManuallyDrop};

use raw_mem::{MmapArenas, RetainingArenas};
use sync::{
    MutexGuard,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use super::{heaps::HEAPS, slot};
use crate::shared_source::SourceGuard;

/// True if the handlers are registered.
static GUARDED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// What this thread has locked for a fork.
    static HELD: Cell<Option<Held>> = const { Cell::new(None) };
}

/// The locks that are held across a fork. They are not dropped with their thread, so the thread
/// needs no destructor for them.
struct Held {
    source: ManuallyDrop<SourceGuard<'static, RetainingArenas<MmapArenas>>>,
    takeovers: ManuallyDrop<MutexGuard<'static, ()>>,
    /// How many times `prepare` has run. Threads that open the first heaps of a process at the same
    /// time each register the handlers.
    times: u32,
}

/// Registers the handlers unless they are registered. It must be called before a heap is opened.
/// Returns false if there is no memory for the handlers. The next call then tries again.
pub(super) fn guard() -> bool {
    if GUARDED.load(Relaxed) {
        return true;
    }
    // SAFETY: the handlers take no arguments, return, and stay while this code is loaded.
    let outcome =
        unsafe { libc::pthread_atfork(Some(prepare), Some(release), Some(release_in_child)) };
    if outcome == 0 {
        GUARDED.store(true, Relaxed);
    }
    outcome == 0
}

extern "C" fn prepare() {
    let held = HELD.take().unwrap_or_else(|| {
        // In this order, because a takeover locks the source.
        let takeovers = ManuallyDrop::new(HEAPS.pause_takeovers());
        let source = ManuallyDrop::new(HEAPS.lock_source());
        Held { source, takeovers, times: 0 }
    });
    HELD.set(Some(Held { times: held.times + 1, ..held }));
}

extern "C" fn release() {
    match HELD.take() {
        Some(held) if held.times > 1 => {
            HELD.set(Some(Held { times: held.times - 1, ..held }));
        }
        Some(held) => {
            drop(ManuallyDrop::into_inner(held.source));
            drop(ManuallyDrop::into_inner(held.takeovers));
        }
        None => {}
    }
}

/// Corrects the count of retained arenas, because those of the other threads' heaps are lost.
///
/// Threads of the child may get the numbers of threads that exist only in the parent. The heaps of
/// those threads may be inconsistent, so they must not be found by these numbers.
extern "C" fn release_in_child() {
    HEAPS.forget_threads_but(slot::thread());
    if let Some(mut held) = HELD.take() {
        // SAFETY: the value is used at once, and not dropped.
        let of_thread = unsafe { slot::owner() }.map_or(0, |owner| owner.retained_arenas());
        // SAFETY: the child of a fork has this thread only.
        let of_others = unsafe { HEAPS.retained_without_threads() };
        held.source.limit_retained_by_heaps(of_thread + of_others);
        HELD.set(Some(held));
    }
    release();
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

    /// Returns a message that arrives when another thread has locked the source.
    fn another_threads_turn() -> Receiver<()> {
        let (sender, receiver) = channel();
        thread::spawn(move || {
            drop(HEAPS.lock_source());
            sender.send(())
        });
        receiver
    }

    /// mutants 20: the handlers were registered again for each heap.
    #[test]
    fn handlers_are_registered_once() {
        assert!(guard());
        assert!(GUARDED.load(Relaxed));
    }

    #[test]
    fn a_child_does_not_count_what_the_heaps_of_other_threads_retained() {
        let size = obmalloc::Shape::<ThreadGeometry>::ARENA;
        prepare();
        let mut held = HELD.take().expect("the source is locked");
        let first = held.source.source().map(size).expect("there is memory");
        // SAFETY: it was mapped above, and nobody uses it.
        unsafe { held.source.source().unmap(first, size) };
        // An arena that was unmapped is mapped again, so from now on one may be retained.
        let arena = held.source.source().map(size).expect("there is memory");
        assert_eq!(held.source.source().retain(0, 1), 1);
        let retained = held.source.retained();
        HELD.set(Some(held));
        release_in_child();
        let mut source = HEAPS.lock_source();
        assert_eq!(source.retained(), retained - 1);
        // SAFETY: it was mapped above, and nobody uses it.
        unsafe { source.source().unmap(arena, size) };
    }

    #[test]
    fn handlers_that_are_registered_twice_lock_once_and_unlock_once() {
        prepare();
        prepare();
        let turn = another_threads_turn();
        release();
        assert!(turn.recv_timeout(Duration::from_millis(100)).is_err(), "unlocked too early");
        release();
        turn.recv_timeout(Duration::from_secs(60)).expect("the source is unlocked");
    }
}
