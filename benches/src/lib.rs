//! Workloads that are the same for each allocator, and a worker process for each allocator.
//!
//! ```text
//!   cargo xtask bench                       round by round, in rotating order
//!        │ run NAME CHUNKS                  the command line of a process
//!        ▼
//!   worker-obmalloc  worker-mimalloc-v3  worker-cpython …      one program for each allocator
//!        │ runs the workload NAME on its contender
//!        ▼
//!   { "nanoseconds": 4.7, "peak": 2437120 … }                  an answer, as a line of JSON
//! ```
//!
//! # Rules
//!
//! 1. A worker links only one allocator, and a process runs only one workload. No workload finds a
//!    heap that another one has used, and the peak of resident memory is its own.
//! 2. Every contender runs the same loop on the same sizes in the same order.
//! 3. A new block is written to, by a write that the compiler must not remove. Nothing else happens
//!    between an allocation and its free.
//! 4. The compiler does not know a size, nor that it is the same as before. An allocator that is
//!    inlined therefore looks up the class each time, as one that is called does.
//! 5. A workload allocates what it needs for itself before its time begins, except for what the
//!    standard library allocates when threads start and wait.

pub mod contender;
pub mod contenders;
pub mod counted;
pub mod figures;
pub mod micro;
pub mod patterns;
mod pin;
pub mod programs;
pub mod protocol;
mod random;
mod resident;
pub mod scale;
pub mod worker;
pub mod workload;
