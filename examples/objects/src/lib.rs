//! A runtime of small objects over a choice of memory layers, and programs that create many
//! objects.
//!
//! ```text
//!   workloads            programs of examples/python, as a runtime would run them
//!   Value                a counted pointer: int, float, string, list, dict, tuple, instance
//!     │ fixed size         │ by length       │ growing
//!   Objects: FreeList    Run: TupleLists   Memory: Vec, HashMap
//!     └────────────────────┴─────────────────┘
//!   Layers               malloc alone, with pools, with caches, with both
//! ```
//!
//! The runtime creates, counts and drops objects as CPython does, except that it has no garbage
//! collector. Every number is an object, a list is an object with a buffer, and a dict is an object
//! with a table. The effect of a layer is the difference that it makes to leave it out.
//!
//! `unsafe` code is in `run`, `objects`, `memory` and `layers`, where memory is laid out.

pub mod layers;
mod memory;
mod objects;
mod run;
mod runtime;
mod value;
pub mod workloads;

pub use layers::{AllCaches, CachesOverMalloc, CachesOverPools, Layers, MallocAlone, Pools, Store};
pub use memory::Memory;
pub use objects::{Fixed, Objects};
pub use run::{Instance, Run, Text, Tuple};
pub use runtime::Runtime;
pub use value::{Dict, List, Value};
