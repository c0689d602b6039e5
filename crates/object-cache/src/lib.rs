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
//! The free objects themselves hold the links of the lists (`list`). All caches have these
//! properties:
//!
//! 1. A cache never reuses the storage of one type for another type. Storage of one type can hold
//!    another type only after it was returned to the allocator and allocated again.
//! 2. A cache allocates no memory for itself, because the free objects hold the links of its lists.
//! 3. A cache never hands out storage that is already in use. Every value is dropped exactly once,
//!    even if code panics.
//! 4. A cache retains no more free objects than its bound, and `clear` returns the storage of all
//!    of them to the allocator below. The only exception is [`cpython::BlockCache`]. It has no
//!    bound, and its `clear` returns only blocks in which every object is free.
//!
//! [`CacheGroup`] clears and measures several caches together. [`RetryAfterClear`] is an allocator
//! that clears caches when memory is exhausted, and then repeats the request.

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
/// The crate of the allocators below, whose trait `MemAlloc` appears in signatures of this crate.
pub use raw_mem;
pub use threads::{SharedCache, ThreadCache};
