//! CPython's heap for small objects, extended to blocks of every size.
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
//! A [`Heap`] allocates only blocks of a [`SizeClass`], and needs no operating system:
//!
//! ```
//! use core::mem::MaybeUninit;
//! use obmalloc::{Heap, SizeClass};
//! use raw_mem::{Bump, FixedRegion};
//!
//! // Arenas of 1 MiB are aligned to their size, so a buffer of 2 MiB always contains one.
//! let mut arenas = vec![MaybeUninit::uninit(); 2 << 20];
//! let mut records = [MaybeUninit::uninit(); 4096];
//! let mut heap = Heap::new(FixedRegion::new(&mut arenas), Bump::new(&mut records));
//! assert!(heap.alloc(SizeClass::of(100).ok_or("too large")?).is_some());
//! # Ok::<(), &str>(())
//! ```
//!
//! Without the default feature `std`, the crate is `no_std` and has no [`Locked`] heaps.
//!
//! # Arenas, pools, blocks
//!
//! ```text
//!  arena   arena_size bytes, aligned to that        from an ArenaSource
//!  ├────────┬────────┬────────┬─ ─ ─ ─ ┬────────┤
//!  │ unit 0 │ unit 1 │ unit 2 │   ...  │ unit n │  each has pool_size bytes, aligned to that
//!  ├────────┴────────┴────────┴─ ─ ─ ─ ┴────────┤
//!      │
//!      ▼
//!  pool    one unit or several adjacent ones, serves one size class at a time
//!  ├────────┬───────┬───────┬───────┬─ ─ ─ ─ ─ ─┬──────┤
//!  │ header │ block │ block │ block │ uncarved  │ tail │
//!  ├────────┴───────┴───────┴───────┴─ ─ ─ ─ ─ ─┴──────┤
//!      │ free list: the block freed last, then the one before it, …
//!      ▼
//!  block   of one size class: what a caller gets
//! ```
//!
//! A [`Geometry`] defines the sizes and rules of a heap. For example, [`Pools16K`] matches CPython
//! 3.10 and later.
//!
//! With CPython's geometries, a heap serves only small requests, up to 256 or 512 bytes depending
//! on the CPython version.
//!
//! A request of `n` bytes has the size class `(n - 1) / alignment`. Each pool is one arena unit.
//!
//! The geometry [`Native`] also has size classes for larger blocks. From 512 bytes to 8 KiB, there
//! are eight classes for each doubling. Each arena begins with the headers of all its units. The
//! size of a request determines how it is served:
//!
//! | request | served by |
//! | --- | --- |
//! | up to 1 KiB | a pool of one unit of 16 KiB |
//! | up to 8 KiB | a *medium pool* of up to 8 units, with about 32 blocks |
//! | up to 480 KiB | a *span*, which is a pool of one block, rounded up to whole units |
//! | above | a [`LargeBlock`], which has a separate mapping: see [`Heap::alloc_large`] |
//!
//! A free block of up to 1 KiB contains a link to the next free block of its pool, as in CPython.
//! Larger free blocks contain no links, because the header of their pool has a bit for each block.
//!
//! # Where things are
//!
//! | module | content |
//! | --- | --- |
//! | `geometry` | sizes and rules as a type, CPython's eras, size classes |
//! | `pool` | a pool's header, blocks, and the free list |
//! | `arena` | the records of arenas: which units and pages are free, which arena is used next; the map that tells whether an address is in an arena |
//! | `large` | blocks that are too large for an arena |
//! | `heap` | the fast and slow paths; used pools; empty pools; spans; when memory is purged; statistics and invariants |
//! | `entry` | guards around a heap, and [`Pymalloc`] |
//!
//! # Rules
//!
//! The method [`Heap::check_invariants`] asserts each of these rules.
//!
//! 1. Each unit of an arena is free or belongs to one pool. The blocks of a pool are adjacent and
//!    begin after the headers. The tail after the last block is smaller than a block.
//! 2. *Uncarved* memory of a pool is not divided into blocks at present. The numbers of blocks in
//!    use, on the free list and uncarved add up to the pool's capacity. No block that is in use or
//!    on the free list touches an uncarved page.
//! 3. A pool is *used* (in its class's list), *full* (in no list) or *free* (its arena counts its
//!    units as free). A full pool has fewer free blocks than the number that makes it used again.
//!    Only the first pool in a class's list can have run out of blocks. The only used pool of a
//!    class can be *retained*, which means that it stays in the list without a block in use. Spans
//!    are exceptions: they may run out and be retained at any place in the list.
//! 4. The list of a class is doubly linked, and all of its pools have that class.
//! 5. The record of an arena describes a mapped arena, or is in the list of unused records.
//! 6. The usable arenas, which have a free unit, are listed by ascending number of free units. New
//!    pools come from the front of this list, so that all units of the other arenas can become
//!    free.
//! 7. `last_with[n]` is the last usable arena with n free units, or `None`.
//! 8. An arena whose units are all free is unmapped, unless the heap may retain it. The arena
//!    source can allow the heap to do so. CPython's geometries from 3.9 on retain the last usable
//!    arena.
//!
//! In CPython's geometries, blocks have the same addresses as in CPython, although the code differs
//! in three places:
//!
//! - When a pool runs out of free blocks, CPython removes it from the list of its size class at
//!   once. We leave the pool in the list until another pool takes its place.
//! - CPython carves one block at a time. We carve all blocks that begin on the same page at once.
//! - CPython returns an empty pool to its arena. We let the size class retain the pool if its next
//!   request for a pool would get the same pool anyway.

#![no_std]

#[cfg(feature = "serde")]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod arena;
mod entry;
mod geometry;
mod heap;
mod large;
mod pool;

pub use arena::{list::ArenaList, map::ArenaMap};
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
    shape::{BlockStart, Shape},
    size_class::SizeClass,
};
#[cfg(feature = "serde")]
pub use heap::snapshot::{ArenaSnapshot, LargeSnapshot, RunSnapshot, RunState, Snapshot};
pub use heap::{
    Heap,
    figures::{ArenaFigures, ArenaTotals, ClassInUse, InUse, Kind},
    purging::PurgePolicy,
    stats::{ArenaStats, ByteStats, ClassStats, LargeStats, Stats},
    walk::LiveBlock,
};
pub use large::{LargeBlock, NewLarge};
pub use pool::{block::BlockPtr, tag::HeapTag};
/// The crate of the layer below, re-exported because its types appear in signatures of this crate.
pub use raw_mem;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
