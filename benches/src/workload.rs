//! A workload: a loop over a contender, and what it took.

use std::{
    mem::MaybeUninit,
    time::{Duration, Instant},
};

/// Which part of the bench a workload belongs to.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
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
    /// How tables call it.
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
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Milliseconds: there is a chunk to warm up, and then several.
    Light,
    /// About a second: one chunk is enough.
    Heavy,
    /// Many seconds, and gigabytes.
    Huge,
}

/// What a chunk of a workload took.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// The time of all its operations.
    pub time: Duration,
    /// How many they were. What an operation is, the workload says.
    pub operations: u64,
    /// Bytes that each live block took beyond its size, where that was looked at.
    pub overhead: Option<f64>,
}

impl Taken {
    /// What `work`, which does `operations`, takes of this thread's processor time: in the
    /// program, and in the kernel for it. What the kernel gives to other programs is not in it.
    #[inline(always)]
    pub fn by(operations: usize, work: impl FnOnce()) -> Self {
        let start = processor_time();
        work();
        Self { time: processor_time() - start, operations: operations as u64, overhead: None }
    }

    /// The time that passes while `work` does `operations`, on any number of threads.
    #[inline(always)]
    pub fn together(operations: usize, work: impl FnOnce()) -> Self {
        let start = Instant::now();
        work();
        Self { time: start.elapsed(), operations: operations as u64, overhead: None }
    }

    /// The same, after the memory of the blocks was looked at.
    pub fn with_overhead(self, overhead: f64) -> Self {
        Self { overhead: Some(overhead), ..self }
    }

    /// Nanoseconds of an operation.
    pub fn nanoseconds(self) -> f64 {
        self.time.as_nanos() as f64 / self.operations as f64
    }
}

/// What this thread has used of the processor.
fn processor_time() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: there is room for the time. The clock is there on every Unix, so that it is written.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr()) };
    // SAFETY: two numbers, which were zero before the kernel filled them in.
    let time = unsafe { time.assume_init() };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// A workload on the contender `C`.
#[derive(Debug)]
pub struct Workload<C> {
    /// What it is called on the command line and in tables.
    pub name: &'static str,
    /// Where it belongs.
    pub group: Group,
    /// Runs a chunk of it: some milliseconds, if it is not heavy.
    pub chunk: fn(&mut C) -> Taken,
    /// How long that is.
    pub weight: Weight,
}

impl<C> Workload<C> {
    /// The workload `name` of `group`.
    pub const fn new(group: Group, name: &'static str, chunk: fn(&mut C) -> Taken) -> Self {
        Self { name, group, chunk, weight: Weight::Light }
    }

    /// The same, of another weight.
    #[must_use]
    pub const fn of_weight(self, weight: Weight) -> Self {
        Self { weight, ..self }
    }
}
