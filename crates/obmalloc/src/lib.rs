//! CPython's small-object heap, for one owner at a time.
//!
//! ```
//! use obmalloc::{Heap, KnownArenas, Locked, Pymalloc};
//! use raw_mem::{Malloc, MemAlloc, MmapArenas};
//!
//! // Requests of up to 512 bytes are served from arenas, all others by malloc.
//! let heap = Heap::new(KnownArenas::new(MmapArenas::new(), Malloc), Malloc);
//! // SAFETY: malloc does not serve memory of the heap's arenas.
//! let allocator = unsafe { Pymalloc::new(Locked::new(heap), Malloc) };
//! let block = allocator.malloc(100).ok_or("out of memory")?;
//! println!("{}", allocator.stats());
//! // SAFETY: `block` is live and is not used again.
//! unsafe { allocator.free(Some(block)) };
//! # Ok::<(), &str>(())
//! ```
//!
//! [`Heap`] alone serves blocks of a [`SizeClass`], without a lock and without an allocator for large
//! requests. It needs no operating system:
//!
//! ```
//! use core::mem::MaybeUninit;
//! use obmalloc::{Heap, SizeClass};
//! use raw_mem::{Bump, FixedRegion};
//!
//! // Arenas of 1 MiB are aligned to their size, so 2 MiB always contain one.
//! let mut arenas = vec![MaybeUninit::uninit(); 2 << 20];
//! let mut records = [MaybeUninit::uninit(); 4096];
//! let mut heap = Heap::new(FixedRegion::new(&mut arenas), Bump::new(&mut records));
//! assert!(heap.alloc(SizeClass::of(100).ok_or("too large")?).is_some());
//! # Ok::<(), &str>(())
//! ```
//!
//! The feature `std` (on by default) adds [`Locked`] and the sources of memory in `raw_mem` that need an
//! operating system. Without it the crate is `no_std`.
//!
//! # Arenas, pools, blocks
//!
//! ```text
//!  arena   arena_size bytes, aligned to that        from an ArenaSource
//!  ├────────┬────────┬────────┬─ ─ ─ ─ ┬────────┤
//!  │ pool 0 │ pool 1 │ pool 2 │   ...  │ pool n │
//!  ├────────┴────────┴────────┴─ ─ ─ ─ ┴────────┤
//!      │
//!      ▼
//!  pool    pool_size bytes, aligned to that, serves one size class at a time
//!  ├────────┬───────┬───────┬───────┬─ ─ ─ ─ ─ ─┬──────┤
//!  │ header │ block │ block │ block │ uncarved  │ tail │
//!  ├────────┴───────┴───────┴───────┴─ ─ ─ ─ ─ ─┴──────┤
//!      │ free list: the block freed last, then the one before it, …
//!      ▼
//!  block   of one size class: what a caller gets
//! ```
//!
//! A request of `n` bytes has the class `(n - 1) / alignment`. The heap pops a block from the free list
//! of the first used pool of that class. Everything else is rare, and has a cold function named after
//! the event.
//!
//! The sizes and some rules differ between versions of CPython. A [`Geometry`] describes them:
//! [`Pools16K`] is CPython from 3.10, and [`Native`] has our own rules.
//!
//! # Where things are
//!
//! | module | content |
//! | --- | --- |
//! | `geometry` | sizes and rules as a type, CPython's eras, size classes |
//! | `pool` | a pool's header, blocks, and the free list |
//! | `arena` | the records of arenas: which pools are free, which arena is used next; the map that tells whether an address is in an arena |
//! | `heap` | the fast and slow paths; used pools; empty pools; statistics and invariants |
//! | `entry` | guards around a heap, and [`Pymalloc`] |
//!
//! # Rules
//!
//! [`Heap::check_invariants`] asserts each of them.
//!
//! 1. The blocks of a pool are adjacent, from its first offset on, which is behind all headers. What
//!    is left at its end is never allocated.
//! 2. The blocks in use, the blocks on the free list and the uncarved blocks of a pool add up to its
//!    capacity.
//! 3. A pool is *used* (in its class's list), *full* (in no list) or *free* (in its arena's list). Only
//!    the first pool of a class's list can have run out of blocks. It leaves the list when the next
//!    request notices, or when another pool is put before it. A used pool that is its class's only one
//!    can be *retained*. Then it may have no block in use.
//! 4. The list of a class is doubly linked, and all of its pools have that class.
//! 5. The record of an arena is either unused or has an arena. The unused records are in one list, and
//!    in no other.
//! 6. The usable arenas are exactly those with a free pool, in ascending order of free pools. The
//!    fullest is used first, so that the others can become free.
//! 7. `last_with[n]` is the last usable arena with n free pools, if there is one.
//! 8. An arena whose pools are all free is unmapped, unless it is the last usable one and the geometry
//!    retains that one (CPython from 3.9), or the source allows the heap to retain it.
//!
//! Internally CPython does three things differently, with the same result. It removes a pool from its
//! list when it allocates the last block, where we wait for the next request. It carves one block
//! ahead, where we carve up to the end of the page that is touched anyway. It gives each emptied pool
//! to its arena, where we do not if the next request would take it from there. The integration tests
//! check that every request gets the same address as in CPython.

#![no_std]

#[cfg(feature = "std")]
extern crate std;

mod arena;
mod entry;
mod geometry;
mod heap;
mod pool;

pub use arena::map::ArenaMap;
#[cfg(feature = "std")]
pub use entry::access::{Locked, LockedGuard};
pub use entry::{
    access::{Access, GilHeld},
    blocks::Blocks,
    claim::{Claim, KnownArenas},
    pymalloc::Pymalloc,
};
pub use geometry::{
    Geometry, HeaderRule, ReallocRule, RetainRule, Rules, Sizes,
    eras::{
        Arenas2M, Classes8To256, Classes8To512, GiveBackAll, HeadersInArena, KeepInClass, Native,
        Pools4K, Pools16K, RetainEachClass, Tiny, ZeroInPools,
    },
    shape::Shape,
    size_class::SizeClass,
};
pub use heap::{
    Heap,
    stats::{ArenaStats, ByteStats, ClassStats, Stats},
};
pub use pool::{block::BlockPtr, tag::HeapTag};
/// The layer below, whose types appear in signatures of this crate.
pub use raw_mem;

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
