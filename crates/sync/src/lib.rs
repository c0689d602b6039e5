//! Atomics, cells, locks and threads that can be tested with [loom](https://docs.rs/loom).
//!
//! A normal build uses the types of the standard library. A build with `--cfg loom` uses loom's
//! types instead, so that each test explores all possible interleavings of its threads.
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
//! Code that is tested with loom imports its atomics, cells, locks and threads from this crate
//! instead of the standard library. The tests with loom therefore check the same code that a normal
//! build contains. Loom cannot check code that relies on `SeqCst`, so the crates of this workspace
//! use only weaker orderings outside of tests.
//!
//! # Features
//!
//! - `std` (on by default) adds locks, threads and models. Without this feature, the crate is
//!   `no_std`.

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

/// True if the types of this crate are loom's. Zeroed memory is not a valid atomic of loom.
pub const IS_MODEL: bool = cfg!(loom);

/// Declares a function that is `const`, except under `--cfg loom`, which does not allow that.
#[cfg(not(loom))]
#[macro_export]
macro_rules! const_unless_model {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => { $(#[$meta])* $vis const fn $($rest)* };
}

/// Declares a function that is `const`, except under `--cfg loom`, which does not allow that.
#[cfg(loom)]
#[macro_export]
macro_rules! const_unless_model {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => { $(#[$meta])* $vis fn $($rest)* };
}
