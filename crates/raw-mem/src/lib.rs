//! Memory from the operating system and from `malloc`, behind two traits.
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
//! A [`MemAlloc`] allocates, reallocates and frees blocks. An [`ArenaSource`] maps and unmaps
//! arenas, which are large pieces of memory that are aligned to their own size. It can also map
//! memory for a single block that is too large for an arena.
//!
//! ```text
//!   heaps, caches, hooks, vtables       implement MemAlloc over another MemAlloc
//!        │                     │
//!   MemAlloc (blocks)     ArenaSource (arenas)
//!        │                     │
//!        │                RetainingArenas (keeps some free arenas)
//!        │                     │
//!        │                ReservedArenas (arenas and large mappings in one range of addresses)
//!        │                     │
//!   Malloc · PageBlocks   MmapArenas · MallocArenas · FixedRegion
//!   Bump · NoAlloc             │
//!        │                     │
//!   the C library, pages, a buffer    the operating system, malloc, a buffer
//! ```
//!
//! # Features
//!
//! `std` (on by default) adds [`Malloc`], [`PageBlocks`], [`MmapArenas`], [`ReservedArenas`]
//! and [`RetainingArenas`]. The crate is `no_std` without it.

#![cfg_attr(not(feature = "std"), no_std)]

mod align;
mod arena_size;
mod arena_source;
mod bump;
#[cfg(feature = "std")]
mod cancellation;
mod checkers;
#[cfg(feature = "std")]
mod clock;
mod contents;
#[cfg(feature = "std")]
mod demand;
#[cfg(feature = "std")]
mod errno;
mod error;
mod fixed_region;
mod huge_pages;
mod large;
#[cfg(feature = "std")]
mod limited;
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
mod pressure;
#[cfg(feature = "std")]
mod report;
#[cfg(feature = "std")]
#[cfg_attr(
    not(all(target_os = "linux", target_pointer_width = "64", not(miri))),
    path = "reserved_elsewhere.rs"
)]
mod reserved;
#[cfg(feature = "std")]
mod retaining;
#[cfg(all(test, target_os = "linux"))]
mod testing;
mod unwinding;
mod usage;
#[cfg(feature = "std")]
mod warning;

pub use align::{align_down, align_up};
pub use arena_size::ArenaSize;
pub use arena_source::{ArenaSource, RESERVED_BYTES, resize_or_copy};
pub use bump::Bump;
#[cfg(feature = "std")]
pub use cancellation::without_cancellation;
pub use checkers::{mark_accessible, mark_inaccessible};
#[cfg(feature = "std")]
pub use clock::coarse_now;
pub use contents::Contents;
#[cfg(feature = "std")]
pub use errno::preserving_errno;
pub use error::{MapError, OsCode, PurgeError};
pub use fixed_region::FixedRegion;
pub use huge_pages::{HUGE_PAGE, HugePages};
pub use large::LargeMapping;
#[cfg(feature = "std")]
pub use limited::LimitedArenas;
#[cfg(feature = "std")]
pub use malloc::Malloc;
pub use malloc_arenas::MallocArenas;
pub use mem_alloc::{MAX_REQUEST, MemAlloc, NoAlloc, calloc_size};
#[cfg(feature = "std")]
pub use mmap::MmapArenas;
#[cfg(feature = "std")]
pub use page_blocks::PageBlocks;
#[cfg(feature = "std")]
pub use pressure::MemoryPressure;
#[cfg(feature = "std")]
pub use report::{Output, abort_with, is_readable, test_readable};
#[cfg(feature = "std")]
pub use reserved::ReservedArenas;
#[cfg(feature = "std")]
pub use retaining::RetainingArenas;
pub use unwinding::without_unwinding;
pub use usage::{LimitReached, Limits, Usage};
#[cfg(feature = "std")]
pub use warning::warn_of_soft_limit;

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
