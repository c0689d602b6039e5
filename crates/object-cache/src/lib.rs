//! Layer 3: caches of dead objects, for a runtime's busiest types.
//!
//! ```text
//!   Cached · CachedRc · CachedRun         owning pointers
//!        │ take, retire
//!   FreeList        up to n dead objects of one type, the last one put first
//!   KeyedFreeList   the same for each length: tuples
//!   BlockCache      blocks of about 1 KiB, cut into objects, given back on demand alone
//!   HuskList        values that keep their buffers for the next life
//!   SharedCache     a list for each thread, and a depot of magazines between them
//!        │ a miss, an overflow
//!   MemAlloc        whichever heap is below
//! ```
//!
//! 1. Memory that was freed by one type is never handed to another.
//! 2. A cache has no memory of its own: dead objects are the links of their list.
//! 3. No object is handed out twice, and every value is dropped once, whoever panics.
//! 4. No more is kept than a bound allows; `clear` gives all of it down, and says how much it was.
//!
//! Values forever are in [`Immortals`]; a [`Registry`] clears and reports many caches at once,
//! and [`RetryAfterClear`] does so when memory is out. [`presets`] has CPython's bounds.
//!
//! The crate knows the trait [`MemAlloc`], and no heap. It is `no_std`, and
//! uses no allocator but the one it is given.
//!
//! # A cache for your own type, in ten lines
//!
//! ```
//! use object_cache::{Cached, FreeList};
//! use raw_mem::Malloc;
//!
//! struct Frame { code: usize, locals: [u64; 8] }
//!
//! let frames = FreeList::<Frame, _>::new(200, Malloc);          // keeps at most 200 dead frames
//! for code in 0..1000 {
//!     let frame = Cached::new_in(Frame { code, locals: [0; 8] }, &frames).expect("memory");
//!     assert_eq!(frame.locals[frame.code % 8], 0);
//! }                                                             // dropped: back to `frames`
//! assert_eq!((frames.stats().misses, frames.stats().hits), (1, 999));
//! ```
//!
//! For a type that many pointers share, take [`CachedRc`]; for a cache for each thread that
//! nobody has to pass around, [`thread_cache!`].

#![no_std]

#[cfg(test)]
extern crate std;

mod block_cache;
mod cache;
mod cached;
mod cached_rc;
mod dead_list;
mod debug;
mod depot;
mod free_list;
mod home;
mod husk;
mod husk_list;
mod immortal;
mod keyed;
mod link;
mod local;
mod magazine;
pub mod presets;
mod recycle;
mod registry;
mod report;
mod retry;
mod run;
mod shared_cache;
mod sort;
mod stats;
mod storage;
#[cfg(test)]
mod testing;
mod thread_cache;
mod thread_list;

pub use block_cache::BlockCache;
pub use cache::Cache;
pub use cached::Cached;
pub use cached_rc::{CachedRc, Counted};
pub use free_list::FreeList;
pub use home::{BareHome, Home, HuskHome, drop_and_put};
pub use husk_list::HuskList;
pub use immortal::Immortals;
pub use keyed::KeyedFreeList;
/// What is below a cache.
pub use raw_mem::MemAlloc;
pub use recycle::Recycle;
pub use registry::{Named, Registry};
pub use report::Report;
pub use retry::RetryAfterClear;
pub use run::CachedRun;
pub use shared_cache::SharedCache;
pub use stats::{Cleared, Stats};
pub use thread_cache::ThreadCache;
