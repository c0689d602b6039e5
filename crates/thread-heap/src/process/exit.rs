//! Detects the end of a thread, so that the thread's heap can be closed.
//!
//! ```text
//!   thread ends ─► destructors of thread-locals ─► destructors of keys, round 1 ─► … round 4
//!                                                   └─ our key's: the heap is closed
//! ```
//!
//! We use the destructor of a key for thread-specific values (`pthread_key_create`). The C library
//! runs the destructors of keys after the destructors of thread-locals. If a destructor sets the
//! value of a key again, the C library runs another round of destructors, up to four rounds in
//! total (`PTHREAD_DESTRUCTOR_ITERATIONS`). A heap that a destructor opens in any round except the
//! last is therefore closed in the next round.
//!
//! Setting the value of a key needs no memory unless the process has more than 31 keys. If memory
//! is needed and the C library cannot allocate it, the call returns an error, and we can react to
//! this error. The alternative is the destructor of a `thread_local!`. It would be worse, because
//! registering such a destructor may allocate memory in every process, and the process is aborted
//! if this allocation fails.
//!
//! After our destructor has run, each further request of the thread opens a heap and closes it
//! again. With one exception, every heap is therefore closed when its thread ends. The exception is
//! a thread that opens its first heap in the last round of destructors. No round is left to close
//! this heap, so it stays open when the thread ends. [`ThreadHeap::thread`] describes how a later
//! thread finds such a heap.
//!
//! [`ThreadHeap::thread`]: crate::heaps::ThreadHeap::thread

use std::cell::Cell;

use super::slot;

thread_local! {
    /// True after [`close_heap`] has run in this thread.
    static ENDED: Cell<bool> = const { Cell::new(false) };
}

/// Closes the calling thread's heap. From then on, if a request of this thread opens a heap, the
/// heap is closed at the end of the request.
fn close_heap() {
    ENDED.set(true);
    drop(slot::take());
}

/// Arranges for the calling thread's heap to be closed when the thread ends. Returns false if this
/// is impossible, because the thread is already ending, because no key is available, or because the
/// value of the key cannot be set. The caller must then close the heap at the end of the request.
///
/// This function is never inlined. If it were inlined into a coroutine, the compiler could keep the
/// address of the thread-local `ENDED` in a register while the coroutine moves to another thread.
/// The coroutine would then use the flag of the first thread.
#[cold]
#[inline(never)]
pub(super) fn will_be_noticed() -> bool {
    !ENDED.get() && system::call_at_exit()
}

#[cfg(unix)]
mod system {
    use std::{ffi::c_void, ptr};

    use sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use crate::process::exit::close_heap;

    /// The number of the key whose destructor closes a thread's heap, plus 1. Before the key is
    /// created and after it is deleted, one of two constants that are not such a number.
    ///
    /// All accesses are relaxed. The value is only a number, and no other memory becomes visible
    /// together with it.
    static KEY: AtomicUsize = AtomicUsize::new(NOT_CREATED);

    const NOT_CREATED: usize = 0;
    const DELETED: usize = usize::MAX;

    unsafe extern "C" fn at_exit(_: *mut c_void) {
        close_heap();
    }

    /// Returns the key. Creates the key if it does not exist yet. Returns `None` if the process
    /// cannot create another key, or if the key was deleted because this code is being unloaded.
    pub(super) fn key() -> Option<libc::pthread_key_t> {
        let known = KEY.load(Relaxed);
        if known != NOT_CREATED {
            return (known != DELETED).then(|| (known - 1) as libc::pthread_key_t);
        }
        let mut created = 0;
        // SAFETY: `created` is writable. The destructor `at_exit` stays in memory until
        // `delete_key` has deleted the key.
        if unsafe { libc::pthread_key_create(&mut created, Some(at_exit)) } != 0 {
            return None;
        }
        match KEY.compare_exchange(NOT_CREATED, created as usize + 1, Relaxed, Relaxed) {
            Ok(_) => Some(created),
            Err(_) => {
                // SAFETY: the key was created just now, and no other thread has seen it.
                unsafe { libc::pthread_key_delete(created) };
                key()
            }
        }
    }

    pub(super) fn call_at_exit() -> bool {
        let Some(key) = key() else { return false };
        // When a thread ends, the C library calls the key's destructor only if the thread has set
        // the key to a value other than null. We never use the value itself.
        let value = ptr::from_ref(&KEY).cast::<c_void>();
        // SAFETY: either the key exists, or `delete_key` has deleted the key since we read its
        // number. In the second case, the call returns an error.
        unsafe { libc::pthread_setspecific(key, value) == 0 }
    }

    /// An entry in the table of functions that run when the program exits, or when the library that
    /// contains this code is unloaded. The function in this entry deletes the key. Without it, a
    /// thread that ends after the library was unloaded would call a destructor that is no longer in
    /// memory.
    #[cfg(not(target_vendor = "apple"))]
    #[used]
    #[unsafe(link_section = ".fini_array")]
    static AT_UNLOAD: extern "C" fn() = delete_key;

    #[cfg(not(target_vendor = "apple"))]
    extern "C" fn delete_key() {
        let known = KEY.swap(DELETED, Relaxed);
        if known != NOT_CREATED && known != DELETED {
            // SAFETY: the key exists, and only this call deletes it.
            unsafe { libc::pthread_key_delete((known - 1) as libc::pthread_key_t) };
        }
    }
}

#[cfg(not(unix))]
mod system {
    use crate::process::exit::close_heap;

    thread_local! {
        static AT_EXIT: AtExit = const { AtExit };
    }

    struct AtExit;

    impl Drop for AtExit {
        fn drop(&mut self) {
            close_heap();
        }
    }

    pub(super) fn call_at_exit() -> bool {
        AT_EXIT.try_with(|_| ()).is_ok()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::thread;

    use crate::process::exit::system::key;

    #[test]
    fn all_threads_use_the_same_key() {
        let keys: Vec<_> = (0..4).map(|_| thread::spawn(key)).collect();
        let keys: Vec<_> = keys.into_iter().map(|key| key.join().unwrap().unwrap()).collect();
        assert_eq!(keys, [keys[0]; 4]);
    }
}
