//! Excludes the requests that tracing itself makes.

#![forbid(unsafe_code)]

use core::cell::Cell;

std::thread_local! {
    /// True while the thread is inside a traced request or uses the tables.
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Calls `visit` and returns its result, or returns `None` if this thread is already inside.
pub(super) fn enter<R>(visit: impl FnOnce() -> R) -> Option<R> {
    struct Leave;

    impl Drop for Leave {
        fn drop(&mut self) {
            IS_INSIDE.set(false);
        }
    }

    if IS_INSIDE.replace(true) {
        return None;
    }
    let _leave = Leave;
    Some(visit())
}

/// Calls `visit` without tracing the requests that this thread makes during the call.
pub(super) fn untraced<R>(visit: impl FnOnce() -> R) -> R {
    let was_inside = IS_INSIDE.replace(true);
    let result = visit();
    IS_INSIDE.set(was_inside);
    result
}
