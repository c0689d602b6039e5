//! How the end of a thread is noticed, so that its heap is closed.
//!
//! ```text
//!   thread ends ─► destructors of thread-locals ─► destructors of keys, round 1 ─► … round 4
//!                                                   └─ our key's: the heap is closed
//! ```
//!
//! The C library runs the destructors of keys after those of thread-locals, and repeats them for up
//! to four rounds (`PTHREAD_DESTRUCTOR_ITERATIONS`) as long as keys get new values. A heap that is
//! opened in any round but the last is closed in the next one. Setting a key's value needs no
//! memory unless the process has more than 31 keys, and a lack of memory is reported rather than
//! fatal. The destructor of a thread-local has neither property.
//!
//! Once the destructor has run, the thread does not stay the owner of a heap again. Each of its
//! later requests opens a heap and closes it. A heap that was opened for the first time in the last
//! round stays open when its thread ends. [`ThreadHeap::thread`] tells how it is found again.
//!
//! [`ThreadHeap::thread`]: crate::heaps::ThreadHeap::thread

use std::cell::Cell;

use super::slot;

thread_local! {
    /// True once [`close_heap`] has run in this thread.
    static ENDED: Cell<bool> = const { Cell::new(false) };
}

/// Closes the calling thread's heap. From now on the thread closes a heap after each request.
fn close_heap() {
    ENDED.set(true);
    drop(slot::take());
}

/// Arranges for the calling thread's heap to be closed when the thread ends. Returns false if the
/// heap must be closed at once instead, because the thread is already ending, or because there is no
/// memory or no key.
///
/// This function is never inlined, because a coroutine must not keep the address of `ENDED` across
/// a switch between threads.
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

    /// The key whose destructor closes a thread's heap, plus 1, or one of the two values below.
    ///
    /// All accesses are relaxed, because the key is only a number.
    static KEY: AtomicUsize = AtomicUsize::new(NOT_CREATED);

    const NOT_CREATED: usize = 0;
    const DELETED: usize = usize::MAX;

    unsafe extern "C" fn at_exit(_: *mut c_void) {
        close_heap();
    }

    /// Returns the key, creating it if this is the first call. `None` if the process has no key
    /// left, or if this code is being unloaded.
    pub(super) fn key() -> Option<libc::pthread_key_t> {
        let known = KEY.load(Relaxed);
        if known != NOT_CREATED {
            return (known != DELETED).then(|| (known - 1) as libc::pthread_key_t);
        }
        let mut created = 0;
        // SAFETY: `created` is writable, and the destructor stays until `delete_key` has run.
        if unsafe { libc::pthread_key_create(&mut created, Some(at_exit)) } != 0 {
            return None;
        }
        match KEY.compare_exchange(NOT_CREATED, created as usize + 1, Relaxed, Relaxed) {
            Ok(_) => Some(created),
            Err(_) => {
                // SAFETY: no other thread has seen this key.
                unsafe { libc::pthread_key_delete(created) };
                key()
            }
        }
    }

    pub(super) fn call_at_exit() -> bool {
        let Some(key) = key() else { return false };
        // The value only has to be different from null.
        let value = ptr::from_ref(&KEY).cast::<c_void>();
        // SAFETY: the key exists, or `delete_key` has run in the meantime, which the call reports.
        unsafe { libc::pthread_setspecific(key, value) == 0 }
    }

    /// Deletes the key when the program exits, or when the library that this code is part of is
    /// unloaded. Otherwise a thread that ends later would call a destructor that is gone.
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
