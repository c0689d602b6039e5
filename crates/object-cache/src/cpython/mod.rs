//! CPython's own caches, for runtimes that want the same ones.
//!
//! - [`Version`] has the bounds of CPython's caches, from 2.7 to 3.15.
//! - [`TupleLists`] has a free list for each length of an object, as CPython has for tuples.
//! - [`Immortals`] is a table of values that are never freed, as CPython has for small ints.
//! - [`BlockCache`] allocates objects in blocks, as CPython 2 did for ints and floats.
//! - [`DebugMallocStats`] prints the figures of caches as `sys._debugmallocstats` does.
//!
//! Most other caches of CPython are free lists, for which there is [`FreeList`](crate::FreeList):
//!
//! ```
//! use object_cache::{FreeList, cpython::{Kind, Version}};
//! use raw_mem::Malloc;
//!
//! let bound = Version::V3_14.bound(Kind::Float).unwrap();
//! let floats = FreeList::<f64, _>::new(bound, Malloc);
//! assert_eq!(floats.stats().bound, 100);
//! ```

mod block_cache;
mod bounds;
mod debug_stats;
mod immortals;
mod sort;
mod tuple_lists;

pub use block_cache::BlockCache;
pub use bounds::{Kind, Version};
pub use debug_stats::DebugMallocStats;
pub use immortals::Immortals;
pub use tuple_lists::TupleLists;
