//! A workload is a loop over a contender. A chunk of it tells what it took.

use std::{
    mem::MaybeUninit,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// The part of the bench that a workload belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// A few instructions over and over, on one thread.
    Micro,
    /// Patterns from the literature, on several threads.
    Patterns,
    /// Few to many blocks, few to many threads.
    Scale,
    /// Programs as people write them.
    Programs,
    /// Programs in Python.
    Python,
}

impl Group {
    /// The name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Micro => "micro",
            Self::Patterns => "patterns",
            Self::Scale => "scale",
            Self::Programs => "programs",
            Self::Python => "python",
        }
    }
}

/// How long a chunk of a workload takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Milliseconds. A chunk warms up, and several chunks follow.
    Light,
    /// About a second. One chunk is enough.
    Heavy,
    /// Many seconds, and gigabytes.
    Huge,
}

/// What a chunk of a workload took.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// The time of all its operations.
    pub time: Duration,
    /// The number of its operations. The workload says what an operation is.
    pub operations: u64,
    /// Bytes of each live block beyond its size, if the workload measures them.
    pub overhead: Option<f64>,
}

impl Taken {
    /// Runs `work`, which performs `operations` operations, and measures the processor time that the
    /// calling thread uses. Time in the kernel counts, and time of other programs does not.
    #[inline(always)]
    pub fn by(operations: usize, work: impl FnOnce()) -> Self {
        let start = processor_time();
        work();
        Self { time: processor_time() - start, operations: operations as u64, overhead: None }
    }

    /// Runs `work`, which performs `operations` operations on any number of threads, and measures the
    /// wall time from its start to its end.
    #[inline(always)]
    pub fn together(operations: usize, work: impl FnOnce()) -> Self {
        let start = Instant::now();
        work();
        Self { time: start.elapsed(), operations: operations as u64, overhead: None }
    }

    /// Nanoseconds of an operation.
    pub fn nanoseconds(self) -> f64 {
        self.time.as_nanos() as f64 / self.operations as f64
    }
}

/// Returns the processor time of this thread.
fn processor_time() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the pointer is valid for the write of a `timespec`.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr()) };
    // SAFETY: a `timespec` consists of two numbers, for which zero is valid.
    let time = unsafe { time.assume_init() };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// A workload on the contender `C`.
#[derive(Debug)]
pub struct Workload<C> {
    /// The name on the command line and in tables.
    pub name: &'static str,
    /// The group that it belongs to.
    pub group: Group,
    /// Runs a chunk, which takes some milliseconds unless `weight` says otherwise.
    pub chunk: fn(&mut C) -> Taken,
    /// How long a chunk takes.
    pub weight: Weight,
}

impl<C> Workload<C> {
    /// Creates a light workload.
    pub const fn new(group: Group, name: &'static str, chunk: fn(&mut C) -> Taken) -> Self {
        Self { name, group, chunk, weight: Weight::Light }
    }

    /// The same workload, with another weight.
    #[must_use]
    pub const fn of_weight(self, weight: Weight) -> Self {
        Self { weight, ..self }
    }
}
