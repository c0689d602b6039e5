//! What a worker prints: one value of these types, as a line of JSON.

use serde::{Deserialize, Serialize};

use crate::workload::{Group, Weight};

/// The answer to `list`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Introduction {
    /// The version that the allocator's library reports, if it does.
    pub library: Option<String>,
    /// The workloads that the worker can run.
    pub workloads: Vec<Listed>,
}

/// A workload by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The name.
    pub name: String,
    /// The group that it belongs to.
    pub group: Group,
    /// How long a chunk takes.
    pub weight: Weight,
}

/// The answer to `run NAME CHUNKS`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Nanoseconds of an operation: the median of the chunks.
    pub nanoseconds: f64,
    /// The peak of the process's resident memory, in bytes.
    pub peak: u64,
    /// Bytes of each live block beyond its size, if the workload measures them.
    pub overhead: Option<f64>,
}
