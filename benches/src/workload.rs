//! A workload is a loop over the operations of a contender. It runs in chunks, and each chunk
//! returns its time.

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
    /// Patterns from the literature, on several threads.
    Patterns,
    /// A growing number of blocks or threads.
    Scale,
    /// Programs such as people write.
    Programs,
    /// Programs in Python.
    Python,
}

impl Group {
    /// Returns the name of the group in tables.
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

/// The time that a chunk of a workload takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Milliseconds. The first chunk warms up, and the measured chunks follow.
    Light,
    /// About a second. One chunk is enough for a measurement.
    Heavy,
    /// Many seconds, and gigabytes of memory.
    Huge,
}

/// The time and memory that a chunk of a workload took.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// The time of all operations of the chunk.
    pub time: Duration,
    /// The number of operations of the chunk. Each workload defines what an operation is.
    pub operations: u64,
    /// The memory that the allocator needs for each live block in addition to the block's size, in
    /// bytes. `None` if the workload does not measure this.
    pub overhead: Option<f64>,
}

impl Taken {
    /// Runs `work`, which performs `operations` operations, and measures the processor time of the
    /// calling thread. This time includes the time that the kernel spends for the thread, but not
    /// the time in which other programs use the processor.
    #[inline(always)]
    pub fn by(operations: usize, work: impl FnOnce()) -> Self {
        let start = processor_time();
        work();
        Self { time: processor_time() - start, operations: operations as u64, overhead: None }
    }

    /// Runs `work`, which performs `operations` operations on any number of threads, and measures
    /// the wall time from the start of `work` to its end.
    #[inline(always)]
    pub fn together(operations: usize, work: impl FnOnce()) -> Self {
        let start = Instant::now();
        work();
        Self { time: start.elapsed(), operations: operations as u64, overhead: None }
    }

    /// Returns the time of one operation, in nanoseconds.
    pub fn nanoseconds(self) -> f64 {
        self.time.as_nanos() as f64 / self.operations as f64
    }
}

/// Returns the processor time that the calling thread has used.
fn processor_time() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the pointer is valid for writing a `timespec`.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr()) };
    // SAFETY: `time` was zeroed and consists of two numbers, for which zero is a valid value.
    let time = unsafe { time.assume_init() };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// A workload for the contender `C`.
#[derive(Debug)]
pub struct Workload<C> {
    /// The name of the workload on the command line and in tables.
    pub name: &'static str,
    /// The group to which the workload belongs.
    pub group: Group,
    /// The function that runs a chunk. A chunk takes some milliseconds, unless `weight` says
    /// otherwise.
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
