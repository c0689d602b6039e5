//! Workloads that are the same for each allocator, and a worker program for each allocator.
//!
//! `cargo xtask bench` runs the workers, which answer with lines of JSON.
//!
//! - A process links one allocator and runs one workload, so the heap is fresh.
//! - Every allocator runs the same loop, with the same sizes in the same order.
//! - The workload writes to each new block, and the compiler cannot remove the write.
//! - Block sizes are hidden from the compiler, so it cannot look up a size class in advance.
//! - A workload allocates its own memory before its time begins.

pub mod c_programs;
pub mod contender;
pub mod contenders;
pub mod counted;
pub mod figures;
pub mod fragmentation;
pub mod memory;
pub mod micro;
pub mod patterns;
mod pin;
pub mod programs;
pub mod protocol;
mod random;
mod resident;
pub mod scale;
pub mod sizes;
pub mod worker;
pub mod workload;
