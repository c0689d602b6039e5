//! Atomics, cells, locks and threads under one set of names: the standard library's in a build,
//! loom's in a model.
//!
//! Every crate that shares memory between threads takes these names from here and nowhere else,
//! so that the code that ships is the code that loom explores. `RUSTFLAGS="--cfg loom"` makes the
//! choice. Elsewhere only tests know of it, what cannot be modelled and is left out then (statics,
//! thread-locals), and [`IS_MODEL`].
//!
//! ```text
//!                 a build            a model (--cfg loom)
//!   atomic        core::sync         loom::sync::atomic: every allowed value is tried
//!   UnsafeCell    core::cell         loom::cell: a race on the contents is a failure
//!   Arc, Mutex    std::sync          loom::sync: every order of locking is tried
//!   thread        std::thread        loom::thread: at most four beside the main one
//!   model(body)   many real runs     every interleaving of body, once
//! ```
//!
//! What loom does not explore: `SeqCst` beyond acquire-release, and stores that a later load of
//! the same thread overtakes. The workspace uses `Acquire`, `Release` and `Relaxed` only.
//!
//! Without the feature `std`, [`atomic`] and [`UnsafeCell`] remain.

#![cfg_attr(not(any(feature = "std", loom)), no_std)]

#[cfg(loom)]
mod checked;
#[cfg(not(loom))]
mod native;
#[cfg(tsan)]
mod visible;

#[cfg(loom)]
use checked as chosen;
#[cfg(not(loom))]
use native as chosen;

#[cfg(any(feature = "std", loom))]
pub use chosen::{Arc, Mutex, MutexGuard, lock, model, rejected, thread, try_lock};
pub use chosen::{UnsafeCell, atomic};

/// The types are loom's: objects, where the zeroes of real ones are their value.
pub const IS_MODEL: bool = cfg!(loom);

/// A function that is `const` in a build, and not in a model: loom's types cannot be made at
/// compile time.
#[cfg(not(loom))]
#[macro_export]
macro_rules! const_unless_model {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => { $(#[$meta])* $vis const fn $($rest)* };
}

/// A function that is `const` in a build, and not in a model: loom's types cannot be made at
/// compile time.
#[cfg(loom)]
#[macro_export]
macro_rules! const_unless_model {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => { $(#[$meta])* $vis fn $($rest)* };
}
