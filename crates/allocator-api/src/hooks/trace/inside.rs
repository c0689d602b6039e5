//! Excludes the requests that tracing itself makes.

#![forbid(unsafe_code)]

use core::cell::Cell;
use std::thread::LocalKey;

std::thread_local! {
    /// True while the thread is inside a traced request or uses the tables.
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Calls `visit` and returns its result, or returns `None` if this thread is already inside.
pub(super) fn enter<R>(visit: impl FnOnce() -> R) -> Option<R> {
    unless_set(&IS_INSIDE, visit)
}

/// Sets `flag` while it calls `visit`, and returns the result. If this thread has already set
/// `flag`, returns `None` instead.
pub(super) fn unless_set<R>(
    flag: &'static LocalKey<Cell<bool>>,
    visit: impl FnOnce() -> R,
) -> Option<R> {
    struct Reset(&'static LocalKey<Cell<bool>>);

    impl Drop for Reset {
        fn drop(&mut self) {
            self.0.set(false);
        }
    }

    if flag.replace(true) {
        return None;
    }
    let _reset = Reset(flag);
    Some(visit())
}

/// Calls `visit` without tracing the requests that this thread makes during the call.
pub(super) fn untraced<R>(visit: impl FnOnce() -> R) -> R {
    let was_inside = IS_INSIDE.replace(true);
    let result = visit();
    IS_INSIDE.set(was_inside);
    result
}
