//! CPython's small-object heap, for one owner: arenas are cut into pools, pools into blocks.
//!
//! ```text
//!  arena   ARENA_SIZE bytes, aligned to it          from an ArenaSource
//!  ├────────┬────────┬────────┬─ ─ ─ ─ ┬────────┤
//!  │ pool 0 │ pool 1 │ pool 2 │   ...  │ pool n │
//!  ├────────┴────────┴────────┴─ ─ ─ ─ ┴────────┤
//!      │
//!      ▼
//!  pool    POOL_SIZE bytes, aligned to it, serves one size class at a time
//!  ├────────┬───────┬───────┬───────┬─ ─ ─ ─ ─ ─┬──────┤
//!  │ header │ block │ block │ block │  virgin   │ tail │
//!  ├────────┴───────┴───────┴───────┴─ ─ ─ ─ ─ ─┴──────┤
//!      │ free list: the last block freed, then the one before …
//!      ▼
//!  block   of one size class: what a caller gets
//! ```
//!
//! A request of `n` bytes is of class `(n - 1) / ALIGNMENT`. The heap has at most one pool for
//! each class at the front of its [used pools](crate::Heap), and pops a block from that pool's
//! free list. Everything else happens seldom, and has a cold function named for the event.
//!
//! # The rooms
//!
//! | room | its idea |
//! | --- | --- |
//! | `geometry` | the sizes of everything, as a type: one for each era of CPython |
//! | `size_class` | a request's class, in range by construction |
//! | `block` | a block, and the free list threaded through blocks |
//! | `pool` | a pool's header: what it can give, what it has out |
//! | `used_pools` | for each class, the pools that have blocks to give |
//! | `rest`, `idle` | emptied pools that stay: one in its class's list, others with their class |
//! | `arena`, `arena_slots`, `arena_table` | arenas: their pools; where their records live; which is used next, which can go |
//! | `heap` | the fast paths, and what happens when a list runs dry |
//! | `arena_map`, `claim` | is this address ours |
//! | `access`, `blocks` | who may enter, and what they may ask for |
//! | `pymalloc` | small requests to the heap, all else below |
//! | `check`, `stats` | walks that assert every rule, and count |
//!
//! # The rules
//!
//! [`Heap::check_invariants`] asserts each of them.
//!
//! 1. A pool's blocks follow each other without gaps from its first offset on, which is behind all
//!    headers; what is left at its end is never given out.
//! 2. Blocks in use, blocks on the free list and virgin blocks make up the pool's capacity.
//! 3. A pool is *used* (in its class's list), *full* (in no list) or *empty* (on its arena's list
//!    of free pools). Only the first of a class's list may have run out of blocks; it leaves the
//!    list when the next request finds that out, or when another pool comes before it. A used
//!    pool that is its class's only one may *rest*, and then have no block in use. An emptied pool
//!    may stay *idle* on a list of its class's own.
//! 4. A class's list is doubly linked and holds pools of that class only.
//! 5. An arena's record is either unused (it has no memory) or has memory; unused ones are in one
//!    list and in no other.
//! 6. `usable_arenas` holds exactly the arenas with a free pool, ascending by free pools; so the
//!    fullest is used first, and the emptiest has the best chance to go.
//! 7. `last_with[n]` is the last arena of that list with n free pools, if there is one.
//! 8. An arena whose pools are all free has been given back, unless it is the last of the list
//!    and the geometry keeps that one (CPython 3.9 and later).
//!
//! What CPython does differently inside, to the same effect: it unlinks a pool when it hands out
//! its last block (here: on the request after that), carves one block ahead (here: up to the end
//! of the page it touches anyway), and gives each emptied pool to its arena (here: not if the next
//! request would take it from there). Which address serves which request is the same; the
//! integration tests compare both.

#![no_std]

#[cfg(feature = "std")]
extern crate std;

mod access;
mod arena;
mod arena_map;
mod arena_slots;
mod arena_table;
mod block;
mod blocks;
mod check;
mod claim;
mod geometry;
mod heap;
mod idle;
mod pool;
mod pymalloc;
mod rest;
mod size_class;
mod stats;
mod used_pools;

pub use access::{Access, GilHeld};
#[cfg(feature = "std")]
pub use access::{Locked, LockedGuard};
pub use arena_map::{ArenaMap, OwnerId};
pub use block::BlockPtr;
pub use blocks::Blocks;
pub use claim::{Claim, KnownArenas};
pub use geometry::{
    Arenas2M, Classes8To256, Classes8To512, Geometry, GiveBackAll, HeaderRule, HeadersInArena,
    KeepInClass, Pools4K, Pools16K, ReallocRule, RestEachClass, RestRule, Shape, Tiny, ZeroInPools,
};
pub use heap::{Heap, HeapTag};
pub use pymalloc::Pymalloc;
/// The layer below: its types stand in the signatures here.
pub use raw_mem;
pub use size_class::SizeClass;
pub use stats::{ArenaStats, ByteStats, ClassStats, Stats};
