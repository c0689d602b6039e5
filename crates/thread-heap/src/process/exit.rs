//! Detects the end of a thread, so that the thread's heap can be closed.
//!
//! ```text
//!   thread ends ─► destructors of thread-locals ─► destructors of keys, round 1 ─► … round 4
//!                                                   └─ our key's: the heap is closed
//! ```
//!
//! We use the destructor of a key for thread-specific values (`pthread_key_create`). The C library
//! runs the destructors of keys after those of thread-locals. If the destructors set new values, it
//! runs them again, for up to four rounds (`PTHREAD_DESTRUCTOR_ITERATIONS`). A heap that a
//! destructor opens in any round but the last is therefore closed in the next round.
//!
//! Setting the value of a key needs no memory unless the process has more than 31 keys. If the C
//! library cannot allocate that memory, it returns an error, and we can react to it. Registering the
//! destructor of a `thread_local!` would be worse, because it may always allocate, and the process
//! is aborted if the allocation fails.
//!
//! After the destructor has run, the thread owns a heap only during a request: each of its later
//! requests opens a heap and closes it again. There is one exception. If a thread opens its first
//! heap in the last round of destructors, no round is left to close the heap, so it stays open when
//! the thread ends. [`ThreadHeap::thread`] describes how a later thread finds such a heap.
//!
//! [`ThreadHeap::thread`]: crate::heaps::ThreadHeap::thread

use std::cell::Cell;

use super::slot;

thread_local! {
    /// True after [`close_heap`] has run in this thread.
    static ENDED: Cell<bool> = const { Cell::new(false) };
}

/// Closes the calling thread's heap. If the thread opens a heap later, it closes that heap at the
/// end of the same request.
fn close_heap() {
    ENDED.set(true);
    drop(slot::take());
}

/// Arranges for the calling thread's heap to be closed when the thread ends. Returns false if this
/// is impossible, because the thread is already ending, or because no memory or no key is
/// available. The caller must then close the heap at the end of the request.
///
/// This function is never inlined. Otherwise a coroutine could keep the address of the thread-local
/// `ENDED` while it moves to another thread, and would then use the flag of the first thread.
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

    /// The key whose destructor closes a thread's heap, plus 1, or one of the two constants below.
    ///
    /// All accesses are relaxed, because no other memory depends on the value: the key is only a
    /// number.
    static KEY: AtomicUsize = AtomicUsize::new(NOT_CREATED);

    const NOT_CREATED: usize = 0;
    const DELETED: usize = usize::MAX;

    unsafe extern "C" fn at_exit(_: *mut c_void) {
        close_heap();
    }

    /// Returns the key, and creates it if this is the first call. Returns `None` if the process
    /// cannot create another key, or if this code is being unloaded.
    pub(super) fn key() -> Option<libc::pthread_key_t> {
        let known = KEY.load(Relaxed);
        if known != NOT_CREATED {
            return (known != DELETED).then(|| (known - 1) as libc::pthread_key_t);
        }
        let mut created = 0;
        // SAFETY: `created` is writable, and the destructor stays in memory until `delete_key` has
        // run.
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
        // SAFETY: either the key exists, or `delete_key` has deleted the key since we read it. In
        // the second case, the call returns an error.
        unsafe { libc::pthread_setspecific(key, value) == 0 }
    }

    /// An entry in the table of functions that run when the program exits, or when the library that
    /// contains this code is unloaded. This entry deletes the key. Without it, a thread that ends
    /// after the unloading would call a destructor that is no longer in memory.
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
