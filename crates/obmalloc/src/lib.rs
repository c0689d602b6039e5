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
//! A [`Heap`] by itself allocates only blocks of a [`SizeClass`]. It has no lock and cannot serve
//! large requests, but it needs no operating system:
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
//! The feature `std` (on by default) adds [`Locked`] and enables those allocators and arena sources
//! of `raw_mem` that need an operating system. Without this feature the crate is `no_std`.
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
//! free list, are handled by separate functions, which are named after the events and are marked as
//! cold.
//!
//! The sizes of arenas, pools and blocks differ between versions of CPython, and so do some rules.
//! A type that implements [`Geometry`] describes the sizes and rules of a heap. For example,
//! [`Pools16K`] has the sizes and rules of CPython from 3.10, and [`Native`] has our own rules.
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
//! 1. The blocks of a pool are adjacent. The first block begins at an offset that leaves room for
//!    the headers at the beginning of the pool. The bytes behind the last block are fewer than a
//!    block and are never allocated.
//! 2. The numbers of blocks in use, blocks on the free list and uncarved blocks of a pool add up to
//!    the pool's capacity.
//! 3. A pool is *used* (in the list of its class), *full* (in no list) or *free* (in the list of
//!    its arena). Only the first pool in the list of a class can have run out of blocks. Such a
//!    pool becomes full and leaves the list when the next request of the class finds no block in
//!    it, or when another pool is put in front of it. A used pool that is the only used pool of its
//!    class can be *retained*. A retained pool stays in the list of its class even if none of its
//!    blocks is in use.
//! 4. The list of a class is doubly linked, and all pools of the list have that class.
//! 5. The heap stores a record for each arena. A record either describes an arena or is unused.
//!    Every unused record is in the list of unused records, and in no other list.
//! 6. An arena is in the list of usable arenas if and only if it has a free pool. The list is in
//!    ascending order of the number of free pools. New pools are taken from the first arena, which
//!    is the fullest. The other arenas therefore do not lose free pools, and all of their pools can
//!    become free.
//! 7. `last_with[n]` is the last arena with n free pools in the list of usable arenas, or `None` if
//!    no usable arena has n free pools.
//! 8. An arena whose pools are all free is unmapped, with two exceptions. If the geometry says so,
//!    the heap retains the arena if it is the last one in the list of usable arenas (CPython from
//!    3.9). The arena source can allow the heap to retain more such arenas.
//!
//! In three places CPython's code does something else than ours, but the addresses of blocks are
//! the same. First, CPython removes a pool from its list when it allocates the last block of the
//! pool. We remove the pool when the next request finds no block in it. Second, CPython carves one
//! block more than it needs. We carve all blocks that begin on a page that the caller will touch
//! anyway. Third, CPython returns each emptied pool to its arena. We keep the pool in the list of
//! its class if the next request would take the same pool again. The integration tests check that
//! every request gets the same address as in CPython.

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
