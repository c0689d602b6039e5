//! Workloads that are the same for each allocator, and a worker program for each allocator.
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
//! 1. A worker links only one allocator, and a process runs only one workload. A workload therefore
//!    never finds a heap that another workload has used, and the peak of resident memory is its
//!    own.
//! 2. Every contender runs the same loop, on the same sizes in the same order.
//! 3. The workload writes to each new block, in such a way that the compiler must not remove the
//!    write. Nothing else happens between the allocation of a block and its free.
//! 4. The compiler knows neither a size nor that it equals the previous size. An allocator that is
//!    inlined must therefore look up the size class in each call, like an allocator that is not
//!    inlined.
//! 5. A workload allocates the memory that it needs for itself before its time begins. The
//!    exception is the memory that the standard library allocates when threads start and wait.

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
