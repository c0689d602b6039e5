//! Memory from the operating system and from `malloc`, behind the two traits that all layers of the
//! workspace share.
//!
//! ```
//! use raw_mem::{ArenaSize, ArenaSource, Malloc, MemAlloc, MmapArenas};
//!
//! let block = Malloc.calloc(10, 8).ok_or("out of memory")?;
//! // SAFETY: `block` is live and is not used again.
//! unsafe { Malloc.free(Some(block)) };
//!
//! let mut source = MmapArenas::new();
//! let size = ArenaSize::new(1 << 20).ok_or("not a power of two")?;
//! let arena = source.map(size)?;
//! // SAFETY: the arena came from this source, and nothing uses it.
//! unsafe { source.unmap(arena, size) };
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! CPython's memory architecture consists of layers. This crate contains the two lowest layers, 0
//! and 1, on which all other layers build:
//!
//! ```text
//!   heaps, caches, hooks, vtables       implement MemAlloc over another MemAlloc
//!        │                     │
//!   MemAlloc (blocks)     ArenaSource (arenas)
//!        │                     │
//!        │                RetainingArenas (retains some arenas that come back)
//!        │                     │
//!   Malloc · PageBlocks   MmapArenas · MallocArenas · FixedRegion
//!   Bump · NoAlloc             │
//!        │                     │
//!   the C library, pages, a buffer    the operating system, malloc, a buffer
//! ```
//!
//! - [`MemAlloc`] is the trait that block allocators implement. It has the four operations of
//!   CPython's allocators: allocate, allocate zeroed, reallocate and free.
//! - [`ArenaSource`] is the trait that sources of arenas implement. An arena is a large piece of
//!   memory that is aligned to its own size, so clearing the low bits of any address in the arena
//!   gives the address of its first byte.
//!
//! # Features
//!
//! `std` (on by default) adds [`Malloc`], [`PageBlocks`], [`MmapArenas`] and [`RetainingArenas`].
//! Without this feature the crate is `no_std`. The two traits, [`Bump`], [`NoAlloc`],
//! [`MallocArenas`] and [`FixedRegion`] need no operating system, so they are available with and
//! without it.

#![cfg_attr(not(feature = "std"), no_std)]

mod align;
mod arena_size;
mod arena_source;
mod bump;
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
mod retaining;

pub use align::{align_down, align_up};
pub use arena_size::ArenaSize;
pub use arena_source::ArenaSource;
pub use bump::Bump;
#[cfg(feature = "std")]
pub use errno::preserving_errno;
pub use error::{MapError, OsCode, PurgeError};
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
pub use retaining::{MAX_RETAINED, RetainingArenas};

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
