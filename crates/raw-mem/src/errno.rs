//! The error number of the C library (`errno`).

/// Calls `action`, and then restores `errno`. Freeing memory must not change `errno`.
///
/// ```
/// let length = raw_mem::preserving_errno(|| "any code".len());
/// assert_eq!(length, 8);
/// ```
pub fn preserving_errno<R>(action: impl FnOnce() -> R) -> R {
    let before = number::get();
    let result = action();
    number::set(before);
    result
}

#[cfg(all(unix, not(miri)))]
pub(crate) use number::{get, set};

#[cfg(all(unix, not(miri)))]
mod number {
    use core::ptr::NonNull;

    pub(crate) fn get() -> i32 {
        // SAFETY: the C library's `errno` variable exists as long as its thread runs.
        NonNull::new(location()).map_or(0, |location| unsafe { location.read() })
    }

    pub(crate) fn set(value: i32) {
        if let Some(location) = NonNull::new(location()) {
            // SAFETY: the C library's `errno` variable exists as long as its thread runs.
            unsafe { location.write(value) }
        }
    }

    /// Returns the address of the calling thread's `errno`, or null on unknown systems.
    #[cfg(any(target_os = "linux", target_os = "emscripten"))]
    fn location() -> *mut i32 {
        // SAFETY: the C function has no preconditions.
        unsafe { libc::__errno_location() }
    }

    #[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
    fn location() -> *mut i32 {
        // SAFETY: the C function has no preconditions.
        unsafe { libc::__errno() }
    }

    #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
    fn location() -> *mut i32 {
        // SAFETY: the C function has no preconditions.
        unsafe { libc::__error() }
    }

    #[cfg(not(any(
        target_os = "linux",
        target_os = "emscripten",
        target_os = "android",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "freebsd",
        target_vendor = "apple"
    )))]
    fn location() -> *mut i32 {
        core::ptr::null_mut()
    }
}

/// Stubs for systems on which the allocators do not use `errno`.
#[cfg(not(all(unix, not(miri))))]
mod number {
    pub(crate) fn get() -> i32 {
        0
    }

    pub(crate) fn set(_: i32) {}
}

#[cfg(all(test, unix, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn an_action_that_fails_does_not_change_the_error_number() {
        set(0);
        preserving_errno(|| set(libc::ENOMEM));
        assert_eq!(get(), 0);
        set(libc::EBADF);
        preserving_errno(|| set(0));
        assert_eq!(get(), libc::EBADF);
    }
}
