//! Typical programs, run on the global allocator.

#[cfg(feature = "programs")]
mod document;
#[cfg(feature = "programs")]
mod messages;
#[cfg(feature = "programs")]
mod persistent;
#[cfg(feature = "programs")]
mod script;
#[cfg(feature = "programs")]
mod tree;

use crate::{contenders::Global, workload::Workload};

/// The names of the programs, even if the feature `programs` is off.
pub const NAMES: [&str; 5] = [
    "tree (rayon)",
    "document (serde_json)",
    "script (rhai)",
    "messages (tokio)",
    "persistent (rpds)",
];

/// Returns the workloads of all programs.
#[cfg(feature = "programs")]
pub fn workloads() -> Vec<Workload<Global>> {
    let chunks = [
        tree::build_and_drop,
        document::parse_and_drop,
        script::run,
        messages::ping_pong,
        persistent::edit,
    ];
    let group = crate::workload::Group::Programs;
    NAMES.into_iter().zip(chunks).map(|(name, chunk)| Workload::new(group, name, chunk)).collect()
}

/// Returns no workloads.
#[cfg(not(feature = "programs"))]
pub fn workloads() -> Vec<Workload<Global>> {
    Vec::new()
}
