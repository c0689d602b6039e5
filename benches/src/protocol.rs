//! The answers of a worker. A worker prints one value of these types, as a line of JSON.

use serde::{Deserialize, Serialize};

use crate::workload::{Group, Weight};

/// The answer to the command `list`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Introduction {
    /// The version that the allocator's library reports, or `None` if it reports no version.
    pub library: Option<String>,
    /// The workloads that the worker can run.
    pub workloads: Vec<Listed>,
}

/// The description of a workload that a worker can run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The name of the workload.
    pub name: String,
    /// The group to which the workload belongs.
    pub group: Group,
    /// The time that a chunk takes.
    pub weight: Weight,
}

/// The answer to the command `run NAME CHUNKS`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The time of an operation in nanoseconds, as the median of the chunks.
    pub nanoseconds: f64,
    /// The peak of the process's resident memory, in bytes.
    pub peak: u64,
    /// The memory that the allocator needs for each live block in addition to the block's size, in
    /// bytes. `None` if the workload does not measure this.
    pub overhead: Option<f64>,
}
