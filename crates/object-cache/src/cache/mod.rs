//! Caches, and the traits through which owning pointers, runtimes and allocators use them.
//!
//! ```text
//!   source      where an owning pointer takes storage from
//!   free_list   a cache for one type, used by one thread
//!   group       clearing and measuring any cache, and several caches together
//!   retry       an allocator that clears caches when memory is exhausted
//! ```

mod free_list;
mod group;
mod retry;
mod source;

pub use free_list::FreeList;
pub(crate) use group::show;
pub use group::{Cache, CacheGroup};
pub use retry::RetryAfterClear;
pub use source::StorageSource;
pub(crate) use source::{drop_and_put, take_and_fill};
