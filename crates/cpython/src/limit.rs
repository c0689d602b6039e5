//! The limit on the bytes of the domains mem and obj, and the program's callback before a refusal.

use std::{
    mem, ptr,
    sync::atomic::{
        AtomicPtr,
        Ordering::{Acquire, Release},
    },
};

use raw_mem::LimitReached;

/// A callback that the program registers.
///
/// We call the callback before we refuse a request that would exceed the memory limit. Its three
/// arguments are numbers of bytes: the size of the request, the memory in use, and the limit. If
/// the callback returns a value other than 0, we try the request again.
type Callback = unsafe extern "C" fn(usize, usize, usize) -> i32;

/// # Invariant
///
/// Null or a [`Callback`].
static CALLBACK: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Sets the callback that runs before a request is refused because of `OBMALLOC_LIMIT`. Null
/// removes the callback.
///
/// The thread that runs the callback holds the GIL, so the callback may call CPython. However,
/// CPython may have requested the memory while it was changing an object, such as a list that
/// grows. The callback must not touch this object. It can safely empty other objects, such as
/// caches.
///
/// # Safety
///
/// - `callback` must be null, or a function that stays valid until the process ends.
/// - The callback must not unwind.
/// - The callback must not use an object that CPython may be changing.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn obmalloc_before_refusal(callback: Option<Callback>) {
    // INVARIANT: the address is null or that of a callback.
    CALLBACK.store(callback.map_or(ptr::null_mut(), |callback| callback as *mut ()), Release);
}

/// Calls the program's callback, if there is one.
pub(crate) fn ask(reached: LimitReached) -> bool {
    let callback = CALLBACK.load(Acquire);
    if callback.is_null() {
        return false;
    }
    // SAFETY: an address that is not null is a callback (invariant).
    let callback = unsafe { mem::transmute::<*mut (), Callback>(callback) };
    let LimitReached { requested, used, limit, .. } = reached;
    // SAFETY: the function stays valid, does not unwind, and uses no object that CPython may be
    // changing (contract of `obmalloc_before_refusal`).
    unsafe { callback(requested, used, limit) != 0 }
}
