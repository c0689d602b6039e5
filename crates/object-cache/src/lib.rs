#![doc = include_str!("../README.md")]
//!
//! # How it works
//!
//! ```text
//!   Cached · CachedRc        owning pointers (`pointer`)
//!        │ take, put         StorageSource, which any cache is
//!        ▼
//!   FreeList                 up to n free objects of one type, for one thread (`cache`)
//!   SharedCache              a cache for each thread, and a depot between them (`threads`)
//!   cpython::…               CPython's other caches (`cpython`)
//!        │ a miss, an overflow
//!        ▼
//!   MemAlloc                 the allocator below, such as malloc or a heap of `obmalloc`
//! ```
//!
//! Every list is linked through the free objects themselves (`list`). All caches have these
//! properties:
//!
//! 1. Storage of one type is never handed to another, unless it returned to the allocator between.
//! 2. A cache allocates no memory for itself.
//! 3. No object is handed out twice, and every value is dropped exactly once, even if code panics.
//! 4. A cache retains no more than its bound, and `clear` returns the storage of all free objects.
//!    Only [`cpython::BlockCache`] has no bound and returns whole blocks.
//!
//! [`CacheGroup`] clears and measures several caches together. [`RetryAfterClear`] clears caches
//! when memory is exhausted.

#![no_std]

#[cfg(test)]
extern crate std;

mod cache;
pub mod cpython;
mod list;
mod pointer;
#[cfg(test)]
mod testing;
mod threads;

pub use cache::{Cache, CacheGroup, FreeList, RetryAfterClear, StorageSource};
pub use list::{CacheStats, Cleared};
pub use pointer::{Cached, CachedRc, RcBox};
/// The allocator below a cache.
pub use raw_mem::MemAlloc;
pub use threads::{SharedCache, ThreadCache};
