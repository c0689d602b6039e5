//! What a worker prints: each a line of JSON.

use serde::{Deserialize, Serialize};

use crate::workload::{Group, Weight};

/// What a worker says of itself when it is asked to `list`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Introduction {
    /// The version that the allocator's library gives of itself, where it gives one.
    pub library: Option<String>,
    /// What it can run.
    pub workloads: Vec<Listed>,
}

/// A workload by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Where it belongs.
    pub group: Group,
    /// How long a chunk of it takes.
    pub weight: Weight,
}

/// What a worker answers to `run NAME CHUNKS`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Nanoseconds of an operation: the median of the chunks.
    pub nanoseconds: f64,
    /// Bytes that were resident when most were, in the whole process.
    pub peak: u64,
    /// Bytes that each live block took beyond its size, where that was looked at.
    pub overhead: Option<f64>,
}
