//! Caches, and the traits through which owning pointers, runtimes and allocators use them.

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
