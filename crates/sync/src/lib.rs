//! Atomics, cells, locks and threads under one set of names: from the standard library in a build,
//! and from [loom](https://docs.rs/loom) in a model.
//!
//! ```
//! use sync::{Arc, Mutex, lock, thread};
//!
//! sync::model(|| {
//!     let sum = Arc::new(Mutex::new(0));
//!     let other = Arc::clone(&sum);
//!     let adder = thread::spawn(move || *lock(&other) += 1);
//!     *lock(&sum) += 2;
//!     adder.join().unwrap();
//!     assert_eq!(*lock(&sum), 3);
//! });
//! ```
//!
//! Every crate that shares memory between threads imports these names from here only, so the code
//! that ships is the code that loom explores. `RUSTFLAGS="--cfg loom"` chooses loom. Other crates
//! need that flag only to leave out what cannot be modelled, such as statics and thread-locals.
//!
//! ```text
//!                 in a build       in a model (--cfg loom)
//!   atomic        core::sync       loom::sync::atomic: every allowed value is tried
//!   UnsafeCell    core::cell       loom::cell: a race on the contents is a failure
//!   Arc, Mutex    std::sync        loom::sync: every order of locking is tried
//!   thread        std::thread      loom::thread: at most four threads beside the main one
//!   model(body)   many real runs   every interleaving of body, once
//!   link          lists whose nodes are free blocks in a build and objects in a model
//! ```
//!
//! Loom does not explore `SeqCst` beyond acquire-release, or a store that a later load of the same
//! thread overtakes. The workspace uses `Acquire`, `Release` and `Relaxed` only.
//!
//! # Features
//!
//! - `std` (default): locks, threads and models. Without it the crate is `no_std` and offers
//!   [`atomic`], [`UnsafeCell`] and [`link`].

#![cfg_attr(not(any(feature = "std", loom)), no_std)]

#[cfg(loom)]
mod checked;
pub mod link;
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

/// True if the types are loom's. Unlike the real types, loom's are not initialised by zero bytes.
pub const IS_MODEL: bool = cfg!(loom);

/// Declares a function that is `const` in a build. It is not `const` in a model, because loom's
/// types cannot be created at compile time.
#[cfg(not(loom))]
#[macro_export]
macro_rules! const_unless_model {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => { $(#[$meta])* $vis const fn $($rest)* };
}

/// Declares a function that is `const` in a build. It is not `const` in a model, because loom's
/// types cannot be created at compile time.
#[cfg(loom)]
#[macro_export]
macro_rules! const_unless_model {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => { $(#[$meta])* $vis fn $($rest)* };
}
