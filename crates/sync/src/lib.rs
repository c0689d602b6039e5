//! Atomics, cells, locks and threads under one set of names. In a normal build, these names stand
//! for types and functions of the standard library. In a model, which is a test that explores every
//! interleaving of its threads, they stand for those of [loom](https://docs.rs/loom).
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
//! Every crate of the workspace that shares memory between threads imports these names only from
//! this crate. Loom therefore explores the same code that is released. Compiling with
//! `RUSTFLAGS="--cfg loom"` selects loom. Other crates test this flag only to leave out code that
//! cannot be modelled, such as statics and thread-locals.
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
//! Loom has two limits. It treats `SeqCst` as acquire-release, and it does not explore executions
//! in which a store becomes visible to other threads only after the same thread has executed a
//! later load. Loom therefore cannot check code that relies on `SeqCst`, and the workspace uses
//! only `Acquire`, `Release` and `Relaxed`.
//!
//! # Features
//!
//! - `std` (on by default) adds locks, threads and models. Without this feature the crate is
//!   `no_std` and offers only [`atomic`], [`UnsafeCell`] and [`link`].

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

/// True if the types of this crate are those of loom. An atomic of the standard library is
/// initialised if all of its bytes are zero. A value of one of loom's types is not, so code that
/// allocates zeroed memory for atomics must test this constant.
pub const IS_MODEL: bool = cfg!(loom);

/// Declares a function that is `const` in a normal build but not in a model (`--cfg loom`), because
/// loom's types cannot be created at compile time.
#[cfg(not(loom))]
#[macro_export]
macro_rules! const_unless_model {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => { $(#[$meta])* $vis const fn $($rest)* };
}

/// Declares a function that is `const` in a normal build but not in a model (`--cfg loom`), because
/// loom's types cannot be created at compile time.
#[cfg(loom)]
#[macro_export]
macro_rules! const_unless_model {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => { $(#[$meta])* $vis fn $($rest)* };
}
