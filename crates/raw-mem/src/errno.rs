//! The C library's error number, which `free` must leave as it found it.

/// Calls `action` and restores `errno` afterwards.
///
/// A program may free memory between a failing call and the place that reads its error number, so
/// no function that frees may change it. Memory goes back to the system, and locks wait, through
/// system calls that set it when they fail.
///
/// ```
/// let length = raw_mem::preserving_errno(|| "whatever happens here".len());
/// assert_eq!(length, 21);
/// ```
pub fn preserving_errno<R>(action: impl FnOnce() -> R) -> R {
    #[cfg(all(unix, not(miri)))]
    {
        let before = get();
        let result = action();
        set(before);
        result
    }
    #[cfg(not(all(unix, not(miri))))]
    action()
}

/// The calling thread's error number.
#[cfg(all(unix, not(miri)))]
pub(crate) fn get() -> i32 {
    location().map_or(0, |location| {
        // SAFETY: the C library's variable of this thread is always there.
        unsafe { location.read() }
    })
}

#[cfg(all(unix, not(miri)))]
pub(crate) fn set(value: i32) {
    if let Some(location) = location() {
        // SAFETY: the C library's variable of this thread is always there.
        unsafe { location.write(value) }
    }
}

/// Where the C library keeps the calling thread's error number.
#[cfg(all(unix, not(miri)))]
fn location() -> Option<core::ptr::NonNull<i32>> {
    #[cfg(any(target_os = "linux", target_os = "emscripten"))]
    // SAFETY: the function takes nothing and returns an address of this thread's.
    let location = unsafe { libc::__errno_location() };
    #[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
    // SAFETY: as above.
    let location = unsafe { libc::__errno() };
    #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
    // SAFETY: as above.
    let location = unsafe { libc::__error() };
    #[cfg(not(any(
        target_os = "linux",
        target_os = "emscripten",
        target_os = "android",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "freebsd",
        target_vendor = "apple"
    )))]
    let location = core::ptr::null_mut();
    core::ptr::NonNull::new(location)
}

#[cfg(all(test, unix, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn an_action_that_fails_leaves_the_error_number_as_it_was() {
        set(0);
        preserving_errno(|| set(libc::ENOMEM));
        assert_eq!(get(), 0);
        set(libc::EBADF);
        preserving_errno(|| set(0));
        assert_eq!(get(), libc::EBADF);
    }
}
