//! Workloads, which run in chunks that each return their time.

use std::{
    mem::MaybeUninit,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// The part of the bench to which a workload belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// A few instructions that are repeated on one thread.
    Micro,
    /// Blocks of one size from 16 bytes to 16 MiB, large vectors and aligned blocks.
    Sizes,
    /// Patterns from the literature, on several threads.
    Patterns,
    /// Patterns with blocks of 16 bytes to 64 KiB.
    Mixed,
    /// A growing number of blocks or threads.
    Scale,
    /// Typical programs.
    Programs,
    /// The usual benchmark programs for allocators, in C.
    C,
    /// Programs in Python.
    Python,
}

impl Group {
    /// Returns the name of the group in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Micro => "micro",
            Self::Sizes => "sizes",
            Self::Patterns => "patterns",
            Self::Mixed => "mixed",
            Self::Scale => "scale",
            Self::Programs => "programs",
            Self::C => "C programs",
            Self::Python => "python",
        }
    }
}

/// The time that a chunk of a workload takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Milliseconds. The first chunk only warms up.
    Light,
    /// About a second, so one chunk is measured.
    Heavy,
    /// Many seconds, and gigabytes of memory.
    Huge,
}

/// The time and memory that a chunk took.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// The time of all operations.
    pub time: Duration,
    /// The number of operations, as the workload defines them.
    pub operations: u64,
    /// The bytes that each live block takes in addition to its size, if measured.
    pub overhead: Option<f64>,
}

impl Taken {
    /// Runs `work` and measures the processor time of the calling thread, including the kernel's.
    #[inline(always)]
    pub fn by(operations: usize, work: impl FnOnce()) -> Self {
        let start = processor_time();
        work();
        Self { time: processor_time() - start, operations: operations as u64, overhead: None }
    }

    /// Runs `work` on any number of threads and measures the wall time.
    #[inline(always)]
    pub fn together(operations: usize, work: impl FnOnce()) -> Self {
        let start = Instant::now();
        work();
        Self { time: start.elapsed(), operations: operations as u64, overhead: None }
    }

    /// Returns the time of one operation in nanoseconds.
    pub fn nanoseconds(self) -> f64 {
        self.time.as_nanos() as f64 / self.operations as f64
    }
}

fn processor_time() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the pointer is valid for writing a `timespec`.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr()) };
    // SAFETY: zero is a valid value for both numbers of a `timespec`.
    let time = unsafe { time.assume_init() };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// A workload for the contender `C`.
#[derive(Debug)]
pub struct Workload<C> {
    /// The name on the command line and in tables.
    pub name: &'static str,
    /// The group of the workload.
    pub group: Group,
    /// The function that runs a chunk.
    pub chunk: fn(&mut C) -> Taken,
    /// The time that a chunk takes.
    pub weight: Weight,
}

impl<C> Workload<C> {
    /// Creates a light workload.
    pub const fn new(group: Group, name: &'static str, chunk: fn(&mut C) -> Taken) -> Self {
        Self { name, group, chunk, weight: Weight::Light }
    }

    /// Returns the same workload with another weight.
    #[must_use]
    pub const fn of_weight(self, weight: Weight) -> Self {
        Self { weight, ..self }
    }
}
