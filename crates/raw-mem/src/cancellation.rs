//! The cancellation of threads (`pthread_cancel`).
//!
//! By default, a cancelled thread ends at its next cancellation point, which is a call of a
//! function such as `open`, `read` or `write`. An allocator must not contain a cancellation point,
//! because the thread could end while it holds a lock or changes a heap.

/// Calls `action`. The calling thread cannot be cancelled during the call.
///
/// On systems other than Linux and Apple's, the function only calls `action`.
///
/// Wrap every call that may be a cancellation point in this function. A signal handler may call it.
///
/// ```
/// let length = raw_mem::without_cancellation(|| "any code".len());
/// assert_eq!(length, 8);
/// ```
pub fn without_cancellation<R>(action: impl FnOnce() -> R) -> R {
    let _guard = Restore { before: state::set(state::DISABLED) };
    action()
}

/// Restores the calling thread's previous state when dropped, even if the action panics.
struct Restore {
    before: state::State,
}

impl Drop for Restore {
    fn drop(&mut self) {
        state::set(self.before);
    }
}

#[cfg(all(any(target_os = "linux", target_vendor = "apple"), not(miri)))]
mod state {
    use core::ffi::c_int;

    pub(super) type State = c_int;

    /// `PTHREAD_CANCEL_DISABLE`.
    #[cfg(target_os = "linux")]
    pub(super) const DISABLED: c_int = 1;
    #[cfg(target_vendor = "apple")]
    pub(super) const DISABLED: c_int = 0;

    unsafe extern "C" {
        fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
    }

    /// Sets whether the calling thread can be cancelled, and returns the previous state.
    pub(super) fn set(state: State) -> State {
        let mut before = state;
        // SAFETY: `before` is valid for writes. The call changes only the state of the calling
        // thread.
        unsafe { pthread_setcancelstate(state, &raw mut before) };
        before
    }
}

/// A stub for all other systems, which does nothing.
#[cfg(not(all(any(target_os = "linux", target_vendor = "apple"), not(miri))))]
mod state {
    pub(super) type State = ();

    pub(super) const DISABLED: State = ();

    pub(super) fn set(_: State) -> State {}
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn a_panic_restores_the_previous_state() {
        let before = state::set(state::DISABLED);
        state::set(before);
        let result = catch_unwind(|| without_cancellation(|| panic!("an error of the action")));
        assert!(result.is_err());
        assert_eq!(state::set(before), before);
        assert_ne!(before, state::DISABLED);
    }
}
