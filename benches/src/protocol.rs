//! The answers of a worker, which it prints as a line of JSON.

use serde::{Deserialize, Serialize};

use crate::workload::{Group, Weight};

/// The answer to the command `list`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Introduction {
    /// The version that the allocator's library reports.
    pub library: Option<String>,
    /// The workloads that the worker can run.
    pub workloads: Vec<Listed>,
}

/// A workload that a worker can run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The name of the workload.
    pub name: String,
    /// The group of the workload.
    pub group: Group,
    /// The time that a chunk takes.
    pub weight: Weight,
}

/// The answer to the command `run NAME CHUNKS`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The median time of an operation, in nanoseconds.
    pub nanoseconds: f64,
    /// The peak of the process's resident memory, in bytes.
    pub peak: u64,
    /// The process's resident memory after the workload freed all its blocks, in bytes.
    pub end: u64,
    /// The page faults of the process that needed no input or output.
    pub faults: u64,
    /// The bytes that each live block takes in addition to its size, if measured.
    pub overhead: Option<f64>,
}
