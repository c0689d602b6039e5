//! Calls of foreign code that may panic.

#![forbid(unsafe_code)]

/// Calls `action`, and ends the process if it panics.
///
/// An allocator must not unwind, because its callers may be in the middle of a change to their own
/// data. An allocator should use this function to call code that the program provides, such as a
/// callback or a clock.
///
/// ```
/// assert_eq!(raw_mem::without_unwinding(|| 3), 3);
/// ```
#[inline]
pub fn without_unwinding<R>(action: impl FnOnce() -> R) -> R {
    let abort = AbortOnUnwind;
    let result = action();
    core::mem::forget(abort);
    result
}

/// Ends the process when it is dropped.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    #[cold]
    #[inline(never)]
    fn drop(&mut self) {
        abort();
    }
}

#[cfg(feature = "std")]
fn abort() -> ! {
    std::process::abort()
}

/// Ends the process by a panic, because `core` has no `abort`.
///
/// The stack is already unwinding when this function is called, and a second panic during unwinding
/// ends the process.
#[cfg(not(feature = "std"))]
fn abort() -> ! {
    panic!("an allocator must not unwind")
}
