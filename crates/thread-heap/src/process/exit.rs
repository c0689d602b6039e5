//! Closes the heap of a thread when the thread ends.
//!
//! The heap is closed by the destructor of a pthread key (thread-specific data) rather than the
//! destructor of a `thread_local!`. If there is no memory, setting the value of a pthread key
//! returns an error, whereas registering a `thread_local!` destructor aborts the process.
//!
//! When a thread ends, the C library calls the destructors of pthread keys in a limited number of
//! rounds. If the thread opens its first heap in the last round, no further round follows in which
//! our destructor could close this heap, so the heap stays open. The heap stores the [number of its
//! thread](crate::heaps::ThreadHeap::thread), which is an address in thread-local memory. Once a
//! later thread has the same address there and thus the same number, it can reuse the heap. A thread
//! searches for such a heap only [now and then](crate::heaps::LeftOpen).

use std::cell::Cell;

use super::slot;

thread_local! {
    static ENDED: Cell<bool> = const { Cell::new(false) };
}

/// Closes the calling thread's heap. From now on, each request closes the heap that it opens.
fn close_heap() {
    ENDED.set(true);
    drop(slot::take());
}

/// Arranges for the calling thread's heap to be closed when the thread ends.
///
/// Returns false if no destructor will close the heap. The caller must then close the heap after
/// the current request.
///
/// This function is never inlined, because the compiler could otherwise cache the address of the
/// thread-local `ENDED` across a coroutine switch.
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

    /// The number of the pthread key whose destructor closes a thread's heap, plus 1.
    ///
    /// Relaxed accesses are enough, because no other memory becomes visible with this number.
    static KEY: AtomicUsize = AtomicUsize::new(NOT_CREATED);

    const NOT_CREATED: usize = 0;
    const DELETED: usize = usize::MAX;

    unsafe extern "C" fn at_exit(_: *mut c_void) {
        close_heap();
    }

    /// Returns the pthread key, and creates it if necessary. Returns `None` if it cannot be created
    /// or was deleted.
    pub(super) fn key() -> Option<libc::pthread_key_t> {
        let known = KEY.load(Relaxed);
        if known != NOT_CREATED {
            return (known != DELETED).then(|| (known - 1) as libc::pthread_key_t);
        }
        let mut created = 0;
        // SAFETY: `created` is writable, and `at_exit` stays in memory until the key is deleted.
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
        // The C library calls the destructor only if the value is not null. We never use the value.
        let value = ptr::from_ref(&KEY).cast::<c_void>();
        // SAFETY: the key exists, or `delete_key` has deleted it and the call returns an error.
        unsafe { libc::pthread_setspecific(key, value) == 0 }
    }

    /// Deletes the pthread key at unload, because its destructor is then no longer in memory.
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
