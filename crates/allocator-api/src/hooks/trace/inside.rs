//! Requests that are not traced, because tracing itself makes them.

#![forbid(unsafe_code)]

use core::cell::Cell;

std::thread_local! {
    /// True while the thread is inside of a traced request or uses the tables.
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Calls `visit` unless this thread is inside of another call.
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

/// Calls `visit`, and does not trace the requests of this thread meanwhile.
pub(super) fn untraced<R>(visit: impl FnOnce() -> R) -> R {
    let was_inside = IS_INSIDE.replace(true);
    let result = visit();
    IS_INSIDE.set(was_inside);
    result
}
