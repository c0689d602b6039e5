//! The program's callback, which is called before a request is refused because of a limit.

use std::{cell::Cell, mem, ptr};

use raw_mem::{LimitReached, without_unwinding};
use sync::atomic::{
    AtomicPtr,
    Ordering::{Acquire, Release},
};

/// The type of the callback. It returns true if the request should be repeated.
pub(crate) type Callback = fn(LimitReached) -> bool;

pub(crate) struct BeforeRefusal(
    /// # Invariant
    ///
    /// Null or a [`Callback`].
    AtomicPtr<()>,
);

thread_local! {
    /// True while the thread runs the callback. Requests that the callback makes are refused
    /// without another call of the callback.
    static IS_ASKING: Cell<bool> = const { Cell::new(false) };

    /// This thread's last request to map memory that a limit has refused.
    ///
    /// `None` if no request was refused, or if the last refusal was reported or forgotten since.
    static REACHED: Cell<Option<LimitReached>> = const { Cell::new(None) };
}

/// Returns true if this thread is running the callback. It may then be in the middle of a request.
pub(crate) fn is_asking() -> bool {
    IS_ASKING.get()
}

/// Stores that a limit has refused this thread's request to map memory. If `reached` is `None`,
/// removes the stored refusal instead.
pub(crate) fn note(reached: Option<LimitReached>) {
    REACHED.set(reached);
}

impl BeforeRefusal {
    sync::const_unless_model! {
        pub(crate) fn new() -> Self {
            Self(AtomicPtr::new(ptr::null_mut()))
        }
    }

    pub(crate) fn set(&self, callback: Callback) {
        // INVARIANT: the address is that of a callback.
        self.0.store(callback as *mut (), Release);
    }

    /// Calls the program's callback if [`note`] has stored a refusal for this thread.
    ///
    /// The function always removes the stored refusal, so each refusal leads to at most one call of
    /// the callback. If this thread is already running the callback, the function does not call it
    /// again.
    ///
    /// Returns true if the callback was called and the request should be repeated.
    pub(crate) fn ask(&self) -> bool {
        let Some(reached) = REACHED.take() else { return false };
        let Some(callback) = self.get() else { return false };
        if IS_ASKING.replace(true) {
            return false;
        }
        let may_retry = without_unwinding(|| callback(reached));
        IS_ASKING.set(false);
        may_retry
    }

    fn get(&self) -> Option<Callback> {
        let address = self.0.load(Acquire);
        // SAFETY: a word that is not null is a callback (invariant).
        (!address.is_null()).then(|| unsafe { mem::transmute::<*mut (), Callback>(address) })
    }
}
