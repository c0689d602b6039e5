//! Handlers that make `fork` safe even if other threads are using the arena source while the
//! process forks.
//!
//! ```text
//!   forking thread     prepare: lock ────────── fork ──┬── parent: unlock
//!   another thread   …maps an arena… ──┘ waited for    └── child: correct the figures, unlock
//! ```
//!
//! Only the forking thread exists in the child. The handlers lock two locks before the fork, and
//! unlock them after the fork in both processes. While the lock of the arena source is held, no
//! other thread changes the source, so the child's copy of the source is consistent. While the lock
//! for takeovers is held, no other thread has taken blocks out of an inbox that it has not pushed
//! back yet. The child would lose such blocks.
//!
//! The C library runs the handlers that prepare a fork in reverse order of registration. Our
//! handlers are registered when the first heap is opened. If other code has registered a handler
//! earlier, that handler therefore runs while our handlers hold the lock of the source. A heap that
//! maps or unmaps an arena needs this lock. Such a handler must therefore not cause a heap to map
//! or unmap an arena, and must not wait for a thread that may do so.

use std::{cell::Cell, mem::ManuallyDrop};

use raw_mem::{MmapArenas, RetainingArenas};
use sync::{
    MutexGuard,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use super::{heaps::HEAPS, slot};
use crate::shared_source::SourceGuard;

/// True if the handlers have been registered.
static GUARDED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The locks that this thread holds for a fork.
    static HELD: Cell<Option<Held>> = const { Cell::new(None) };
}

/// The locks that are held across a fork. Dropping this value does not unlock them, so the
/// thread-local that contains the value needs no destructor.
struct Held {
    source: ManuallyDrop<SourceGuard<'static, RetainingArenas<MmapArenas>>>,
    takeovers: ManuallyDrop<MutexGuard<'static, ()>>,
    /// How many times `prepare` has run for this fork. If several threads open the first heaps of a
    /// process at the same time, each of them may register the handlers. Each handler then runs
    /// several times for a fork, but only the first run may lock, and only the last run may unlock.
    times: u32,
}

/// Registers the handlers, unless an earlier call has registered them. The function must be called
/// before a heap is opened. Returns false if the C library cannot allocate the memory for the
/// registration. The next call then tries again.
pub(super) fn guard() -> bool {
    if GUARDED.load(Relaxed) {
        return true;
    }
    // SAFETY: the handlers take no arguments, do not unwind, and stay in memory while this code is
    // loaded.
    let outcome =
        unsafe { libc::pthread_atfork(Some(prepare), Some(release), Some(release_in_child)) };
    if outcome == 0 {
        GUARDED.store(true, Relaxed);
    }
    outcome == 0
}

extern "C" fn prepare() {
    let held = HELD.take().unwrap_or_else(|| {
        // We lock `takeovers` first and the source second. A thread that takes over an inbox locks
        // the two locks in the same order, so the opposite order here could deadlock.
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

/// Corrects the number of arenas that the source counts as retained by heaps, and unlocks the
/// locks. The heaps of other threads are lost to the child, and so are the arenas that these heaps
/// retain. The source must therefore no longer count these arenas.
///
/// This handler also resets the thread numbers of the other threads' heaps. A new thread of the
/// child may get the same number as a thread that exists only in the parent. Without the reset, the
/// new thread would find the heap of the old thread by this number and open the heap, although the
/// child's copy of the heap may be inconsistent.
extern "C" fn release_in_child() {
    HEAPS.forget_threads_but(slot::thread());
    if let Some(mut held) = HELD.take() {
        // SAFETY: the owner is not dropped, and the slot does not change while it is used.
        let of_thread = unsafe { slot::owner() }.map_or(0, |owner| owner.retained_arenas());
        // SAFETY: the child of a fork has no other thread that could use a heap.
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

    /// Starts a thread that locks the arena source. Returns a channel that receives a message when
    /// the thread has locked the source.
    fn another_threads_turn() -> Receiver<()> {
        let (sender, receiver) = channel();
        thread::spawn(move || {
            drop(HEAPS.lock_source());
            sender.send(())
        });
        receiver
    }

    /// Regression test: opening a heap must not register the handlers again if they are already
    /// registered (mutant 20).
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
        // SAFETY: the arena was mapped above, and nobody uses it.
        unsafe { held.source.source().unmap(first, size) };
        // An arena is requested shortly after another one was unmapped. The source therefore allows
        // a heap to retain one arena from now on.
        let arena = held.source.source().map(size).expect("there is memory");
        assert_eq!(held.source.source().retain(0, 1), 1);
        let retained = held.source.retained();
        HELD.set(Some(held));
        release_in_child();
        let mut source = HEAPS.lock_source();
        assert_eq!(source.retained(), retained - 1);
        // SAFETY: the arena was mapped above, and nobody uses it.
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
