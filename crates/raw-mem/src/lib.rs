//! Layers 0 and 1: memory from the operating system and from `malloc`, and the two traits that
//! every layer above speaks.
//!
//! ```text
//!   a heap, a cache, a hook, a vtable …          speak MemAlloc, upwards and downwards
//!        │                     │
//!   MemAlloc (blocks)     ArenaSource (arenas)
//!        │                     │
//!        │                WarmArenas (keeps some that came back)
//!        │                     │
//!   Malloc · PageBlocks   MmapArenas · MallocArenas · FixedRegion
//!   NoAlloc                    │
//!        │                     │
//!   the C library, pages  the operating system, malloc, a buffer of the caller's
//! ```
//!
//! - [`MemAlloc`] is the four operations that CPython's allocators have: allocate, allocate
//!   zeroed, reallocate, free.
//! - [`ArenaSource`] gives large pieces of memory, each aligned to its own size, so that the
//!   arena of an address is found by masking it.
//!
//! Without the feature `std` the traits, [`NoAlloc`], [`MallocArenas`] and [`FixedRegion`]
//! remain: they need no operating system.

#![cfg_attr(not(feature = "std"), no_std)]

mod align;
mod arena_source;
#[cfg(feature = "std")]
mod errno;
mod error;
mod fixed_region;
#[cfg(feature = "std")]
mod malloc;
mod malloc_arenas;
mod mem_alloc;
#[cfg(feature = "std")]
#[cfg_attr(not(all(unix, not(miri))), path = "mmap_elsewhere.rs")]
mod mmap;
#[cfg(feature = "std")]
mod page_blocks;
#[cfg(all(feature = "std", unix, not(miri)))]
mod pages;
#[cfg(feature = "std")]
mod warm;

pub use align::{align_down, align_up};
pub use arena_source::{Advice, ArenaSize, ArenaSource};
#[cfg(feature = "std")]
pub use errno::preserving_errno;
pub use error::{AdviseError, MapError, OsCode};
pub use fixed_region::FixedRegion;
#[cfg(feature = "std")]
pub use malloc::Malloc;
pub use malloc_arenas::MallocArenas;
pub use mem_alloc::{MAX_REQUEST, MemAlloc, NoAlloc, calloc_size};
#[cfg(feature = "std")]
pub use mmap::MmapArenas;
#[cfg(feature = "std")]
pub use page_blocks::PageBlocks;
#[cfg(feature = "std")]
pub use warm::{MOST_KEPT, WarmArenas};
