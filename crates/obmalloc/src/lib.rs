//! CPython's heap for small objects. A heap has one owner at a time.
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
//! [`Heap`] alone allocates blocks of a [`SizeClass`]. It has no lock, and no allocator for large
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
//! The feature `std` (on by default) adds [`Locked`], and the sources of memory in `raw_mem` that
//! need an operating system. Without this feature the crate is `no_std`.
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
//! A request of `n` bytes has the size class `(n - 1) / alignment`. The heap pops a block from the
//! free list of the first pool in that class's list of used pools. Rarer events, such as an empty
//! free list, are handled by cold functions, which are named after the events.
//!
//! The sizes and some rules differ between versions of CPython. A type that implements [`Geometry`]
//! describes them. For example, [`Pools16K`] has the sizes and rules of CPython from 3.10, and
//! [`Native`] has our own rules.
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
//! [`Heap::check_invariants`] asserts each of the following rules.
//!
//! 1. The blocks of a pool are adjacent. The first one begins at the pool's first offset, behind
//!    all headers. The rest at the end of the pool, which is smaller than a block, is never
//!    allocated.
//! 2. The numbers of blocks in use, blocks on the free list and uncarved blocks of a pool add up to
//!    the pool's capacity.
//! 3. A pool is *used* (in its class's list), *full* (in no list) or *free* (in its arena's list).
//!    Only the first pool of a class's list can have run out of blocks. Such a pool leaves the list
//!    when the next request of the class finds it empty, or when another pool is put before it. A
//!    used pool that is the only one of its class can be *retained*. A retained pool stays in the
//!    list even if none of its blocks is in use.
//! 4. The list of a class is doubly linked, and all pools of the list have that class.
//! 5. A record either describes an arena or is unused. Every unused record is in the list of unused
//!    records, and in no other list.
//! 6. The usable arenas are exactly those with a free pool. They are listed in ascending order of
//!    their number of free pools. New pools are taken from the fullest arena, so that all pools of
//!    the other arenas can become free.
//! 7. `last_with[n]` is the last arena in the list of usable arenas that has n free pools, if there
//!    is one.
//! 8. An arena whose pools are all free is unmapped, with two exceptions. The geometry can retain
//!    the last usable arena (CPython from 3.9), and the source can allow the heap to retain further
//!    ones.
//!
//! CPython does three things differently inside, with the same result. CPython removes a pool from
//! its list when it allocates the pool's last block; we wait until the next request finds the pool
//! empty. CPython carves one block ahead; we carve all blocks up to the end of the page that the
//! caller touches anyway. CPython gives each emptied pool to its arena; we do not if the next
//! request would take that same pool again. The integration tests check that every request gets the
//! same address as in CPython.

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
/// The crate of the layer below, re-exported because its types appear in signatures of this crate.
pub use raw_mem;

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
