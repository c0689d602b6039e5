//! CPython's own caches, for runtimes that use the same caches.
//!
//! Most of CPython's caches are free lists, so [`FreeList`](crate::FreeList) can replace them:
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
