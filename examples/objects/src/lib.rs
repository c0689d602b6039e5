//! A runtime on the four layers: a small object model, and programs that make many objects.
//!
//! ```text
//!   workloads            the programs of examples/python, as a runtime would run them
//!   Value                a counted pointer: int, float, string, list, dict, tuple, instance
//!     │ fixed size         │ by length        │ growing
//!   Objects: FreeList    Row: KeyedFreeList  Buffer, Text
//!     └────────────────────┴──────────────────┘
//!   Layers               malloc alone, with pools, with caches, with both
//! ```
//!
//! Objects are made, counted and dropped as CPython does it, but for its collector: every number
//! is an object, a list is an object with a buffer, a dict one with two tables. So what one layer
//! brings to a runtime can be seen by leaving it out.
//!
//! `unsafe` stands in `buffer`, `row`, `text`, `objects` and `layers`: where memory is laid out.

mod buffer;
mod dict;
pub mod layers;
mod list;
mod objects;
mod row;
mod runtime;
mod text;
mod value;
pub mod workloads;

pub use buffer::Buffer;
pub use dict::Dict;
pub use layers::{CachesOverMalloc, CachesOverPools, Layers, MallocAlone, Pools, Store};
pub use list::List;
pub use objects::{Fixed, Objects};
pub use row::{Instance, Row, Tuple};
pub use runtime::Runtime;
pub use text::Text;
pub use value::Value;
