//! Workloads for allocators, the same for each, and a worker process for each to run them on.
//!
//! ```text
//!   cargo xtask bench                       round by round, each worker in its turn
//!        │ run NAME CHUNKS                  the command line of a process of its own
//!        ▼
//!   worker-obmalloc  worker-mimalloc-v3  worker-cpython …      one program for each allocator
//!        │ workload NAME on its contender
//!        ▼
//!   { "nanoseconds": 4.7, "peak": 2437120 … }                  an answer, as a line of JSON
//! ```
//!
//! # Rules
//!
//! 1. A worker links one allocator only, and a process runs one workload only: none finds the
//!    heap as another has left it, and the peak of resident memory is its own.
//! 2. Every contender runs the same loop on the same sizes in the same order.
//! 3. A block is written to as soon as it is allocated, by a write that no compiler may leave out.
//!    Nothing else stands between an allocation and its free.
//! 4. The compiler knows no size, nor that it is the one of before: an allocator that is inlined
//!    finds the class each time, as one that is called does.
//! 5. What a workload needs for itself is allocated before its time begins; all but what the
//!    standard library takes where threads start and wait.

pub mod contender;
pub mod contenders;
pub mod counted;
pub mod figures;
pub mod micro;
pub mod patterns;
mod pin;
#[cfg(feature = "programs")]
pub mod programs;
pub mod protocol;
mod random;
pub mod scale;
pub mod worker;
pub mod workload;
