//! Handlers that keep the heaps usable in a forked child, in which only the forking thread exists.
//!
//! The handlers are registered with `pthread_atfork`, and hold two locks across a fork:
//! - The lock of the arena source. No other thread can change the source during the fork, so the
//!   child gets a consistent copy. No other thread can remove a heap from the stack of abandoned
//!   heaps either.
//! - The takeover lock. No other thread is moving freed blocks out of a heap's inbox during the
//!   fork, so the child loses none of these blocks.
//!
//! Before a fork, the C library calls the registered handlers in reverse order of registration. A
//! handler that the program registered before ours therefore runs while we hold the lock of the
//! arena source. The program's handler must not map or unmap an arena or a large block, nor open a
//! heap, which the first request of a thread does. It must not wait for a thread that does this
//! either, because it would wait forever for this lock. Our library for `malloc` registers its
//! handlers before all others, so this rule does not concern the programs that it serves.

use std::{cell::Cell, mem::ManuallyDrop};

use sync::{
    MutexGuard,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use super::{
    heaps::{HEAPS, Source},
    slot,
};
use crate::shared_source::SourceGuard;

static GUARDED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static HELD: Cell<Option<Held>> = const { Cell::new(None) };
}

/// The locks that are held across a fork. Dropping this value does not unlock them.
struct Held {
    source: ManuallyDrop<SourceGuard<'static, Source>>,
    takeovers: ManuallyDrop<MutexGuard<'static, ()>>,
    /// How many times `prepare` has run for this fork. Racing threads may register it repeatedly.
    times: u32,
}

/// Registers the handlers once. Call this function before opening a heap, and before locking the
/// arena source or the takeovers.
///
/// Returns false if the C library has no memory. The next call then tries again.
pub(super) fn guard() -> bool {
    if GUARDED.load(Relaxed) {
        return true;
    }
    // SAFETY: the handlers do not unwind, and stay in memory while this code is loaded.
    let outcome =
        unsafe { libc::pthread_atfork(Some(prepare), Some(release), Some(release_in_child)) };
    if outcome == 0 {
        GUARDED.store(true, Relaxed);
    }
    outcome == 0
}

/// Registers the handlers, and then locks the arena source.
pub(super) fn lock_source() -> SourceGuard<'static, Source> {
    guard();
    HEAPS.lock_source()
}

extern "C" fn prepare() {
    let held = HELD.take().unwrap_or_else(|| {
        // A takeover also locks `takeovers` before the source. The opposite order could deadlock.
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

/// Unlocks the locks, and adapts the state of the child to the loss of all other threads.
///
/// The heaps of threads that do not exist in the child may retain free arenas and large mappings,
/// which the child's arena source stops counting. If such a thread was using its heap at the time
/// of the fork, the child's copy of the heap can be inconsistent. A new thread with the same thread
/// number would reuse this copy, so we set the thread numbers of all these heaps to 0, which no
/// thread has.
extern "C" fn release_in_child() {
    HEAPS.forget_threads_but(slot::thread());
    HEAPS.restack();
    if let Some(mut held) = HELD.take() {
        // SAFETY: the owner is not dropped, and the slot does not change while it is used.
        let of_thread = unsafe { slot::owner() }
            .map_or((0, 0), |owner| (owner.retained_arenas(), owner.granted_large()));
        // SAFETY: the child of a fork has no other thread that could use a heap.
        let of_others = unsafe { HEAPS.retained_without_threads() };
        held.source.limit_retained_by_heaps(of_thread.0 + of_others.0);
        held.source.limit_large_retained_by_heaps(of_thread.1 + of_others.1);
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

    fn another_threads_turn() -> Receiver<()> {
        let (sender, receiver) = channel();
        thread::spawn(move || {
            drop(HEAPS.lock_source());
            sender.send(())
        });
        receiver
    }

    /// Regression test: opening a heap must not register the handlers again (mutant 20).
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
        // SAFETY: the arena was mapped above, and nothing uses it.
        unsafe { held.source.source().unmap(first, size) };
        // An arena was requested soon after one was unmapped, so a heap may now retain one.
        let arena = held.source.source().map(size).expect("there is memory");
        assert_eq!(held.source.source().retain(0, 1), 1);
        let retained = held.source.retained();
        HELD.set(Some(held));
        release_in_child();
        let mut source = HEAPS.lock_source();
        assert_eq!(source.retained(), retained - 1);
        // SAFETY: the arena was mapped above, and nothing uses it.
        unsafe { source.source().unmap(arena, size) };
    }

    #[test]
    fn handlers_that_are_registered_repeatedly_lock_once_and_unlock_once() {
        (0..3).for_each(|_| prepare());
        let turn = another_threads_turn();
        (0..2).for_each(|_| release());
        assert!(turn.recv_timeout(Duration::from_millis(100)).is_err(), "unlocked too early");
        release();
        turn.recv_timeout(Duration::from_secs(60)).expect("the source is unlocked");
    }
}
