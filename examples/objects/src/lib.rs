//! A small runtime whose objects can use different memory layers, and programs that create many
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
//! collector. As in CPython, every number is an object, a list is an object with a buffer, and a
//! dict is an object with a table. To measure the effect of a layer, we run a program with and
//! without the layer.
//!
//! Only the modules `run`, `objects`, `memory` and `layers` contain `unsafe` code, because they
//! manage raw memory.

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
