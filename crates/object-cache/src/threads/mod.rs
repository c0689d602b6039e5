//! Caches of several threads, which exchange free objects in batches, called magazines.
//!
//! ```text
//!   declare        thread_cache!, which gives every thread a cache
//!   thread_cache   one thread's cache
//!   thread_list    the free objects of that cache
//!   shared_cache   what the threads share
//!   depot          full magazines on their way from one thread to another
//!   magazine       free objects that change threads together
//! ```

mod declare;
mod depot;
mod magazine;
mod shared_cache;
mod thread_cache;
mod thread_list;

pub use shared_cache::SharedCache;
pub use thread_cache::ThreadCache;
