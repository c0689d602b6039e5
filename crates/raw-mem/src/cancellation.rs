//! The cancellation of threads (`pthread_cancel`).
//!
//! By default, a cancelled thread ends at its next call of a cancellation point, which is a function
//! such as `open`, `read` or `write`. A request or a free must not be a cancellation point, because
//! the thread would end while it holds a lock or changes a heap.

/// Calls `action`, during which the calling thread cannot be cancelled.
///
/// Wrap every call that may be a cancellation point in this function. A signal handler may call it.
///
/// ```
/// let length = raw_mem::without_cancellation(|| "any code".len());
/// assert_eq!(length, 8);
/// ```
pub fn without_cancellation<R>(action: impl FnOnce() -> R) -> R {
    let before = state::set(state::DISABLED);
    let result = action();
    state::set(before);
    result
}

#[cfg(all(any(target_os = "linux", target_vendor = "apple"), not(miri)))]
mod state {
    use core::ffi::c_int;

    /// `PTHREAD_CANCEL_DISABLE`.
    #[cfg(target_os = "linux")]
    pub(super) const DISABLED: c_int = 1;
    #[cfg(target_vendor = "apple")]
    pub(super) const DISABLED: c_int = 0;

    unsafe extern "C" {
        fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
    }

    /// Sets whether the calling thread can be cancelled, and returns the previous state.
    pub(super) fn set(state: c_int) -> c_int {
        let mut before = state;
        // SAFETY: `before` is valid for writes. The function only changes the calling thread.
        unsafe { pthread_setcancelstate(state, &raw mut before) };
        before
    }
}

/// A stub for systems on which threads cannot be cancelled or the allocators call no cancellation
/// point.
#[cfg(not(all(any(target_os = "linux", target_vendor = "apple"), not(miri))))]
mod state {
    pub(super) const DISABLED: () = ();

    pub(super) fn set(_: ()) {}
}
