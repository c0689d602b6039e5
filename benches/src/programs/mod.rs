//! Programs as people write them, on whatever allocator the worker has linked in.
//!
//! | program | what it allocates |
//! | --- | --- |
//! | tree | nodes in boxes, by all processors at once (rayon) |
//! | document | the values of a JSON document: strings, arrays, maps (serde_json) |
//! | script | the values of a script: strings, arrays and maps that come and go (rhai) |
//! | messages | boxes that two tasks send to each other (tokio) |

mod document;
mod messages;
mod script;
mod tree;

use crate::{
    contenders::Global,
    workload::{Group, Workload},
};

/// All of them.
pub fn workloads() -> Vec<Workload<Global>> {
    let workload = |name, chunk| Workload::new(Group::Programs, name, chunk);
    vec![
        workload("tree (rayon)", tree::build_and_drop),
        workload("document (serde_json)", document::parse_and_drop),
        workload("script (rhai)", script::run),
        workload("messages (tokio)", messages::ping_pong),
    ]
}
