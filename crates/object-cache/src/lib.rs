#![doc = include_str!("../README.md")]
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
//! All caches of this crate have these properties:
//! - The memory of a freed object is reused only for objects of the same type.
//! - Each free object stores a pointer to the next one, so the list of free objects needs no extra
//!   memory.
//! - Every value is dropped exactly once, even if its destructor panics.
//! - Every cache except [`cpython::BlockCache`] limits how many free objects it retains.

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
/// The crate of the trait `MemAlloc`, which the allocators below the caches implement.
pub use raw_mem;
pub use threads::{SharedCache, ThreadCache};
