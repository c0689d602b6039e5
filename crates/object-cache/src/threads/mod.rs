//! Caches for several threads, which exchange free objects in batches called magazines.

mod declare;
mod depot;
mod magazine;
mod shared_cache;
mod thread_cache;
mod thread_list;

pub use shared_cache::SharedCache;
pub use thread_cache::ThreadCache;
