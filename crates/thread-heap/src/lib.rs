#![doc = include_str!("../README.md")]
//!
//! # What happens before what
//!
//! Loom rejects the models in the last column, each of which lacks one ordering.
//!
//! | from | to | by | model |
//! | --- | --- | --- | --- |
//! | a block's last use, and what a sender writes into it | its reuse by the owner | inbox: push Release, take Acquire | `a_push_without_release_is_rejected`, `a_take_without_acquire_is_rejected` |
//! | what a sender wrote into blocks | a takeover of them by another thread | inbox: push Release, take over Acquire | `a_takeover_without_acquire_is_rejected` |
//! | what a takeover wrote into blocks, and the table | the owner's use of both | inbox: push Release, take Acquire | `nodes_pushed_back_without_release_are_rejected` |
//! | everything that an owner did to its heap | what the next owner does | inbox: abandon Release, adopt Acquire | `an_abandonment_without_release_is_rejected`, `an_adoption_without_acquire_is_rejected` |
//! | the creation of a thread heap | its adoption by another thread | heap list: add Release, walk Acquire | `a_heap_added_without_release_is_rejected`, `a_walk_without_acquire_is_rejected` |
//! | the zeroes of a node of the arena map | a look-up in it | map: publish Release, find Acquire, lose Acquire | `a_leaf_published_relaxed_is_rejected`, `a_leaf_found_relaxed_is_rejected`, `a_leaf_of_another_taken_relaxed_is_rejected` (obmalloc) |
//! | the removal of an arena from the map | its entry when it is mapped again | the source's lock | `an_arena_retracted_after_it_was_unmapped_is_rejected` |
//! | everything that a thread did to a heap which it left open when it ended | what the next thread with the same thread-local memory does | the C library, before it reuses that memory | |
//! | an arena's entry in the map | a look-up of a block in it | whatever brought the block to the reader | |
//!
//! # Rules
//!
//! 1. Only its owner enters a heap. An [`Owner`] can neither be copied nor leave its thread, and
//!    every operation that changes the heap borrows it mutably.
//! 2. The source of arenas and the allocator of metadata never call back into a heap.
//! 3. A heap is never freed, so the tag of a block stays valid as long as the block.
//!
//! # Fork
//!
//! The child of a process with many threads has the forking thread only, and its heap stays usable.
//! The heaps of the other threads may be inconsistent, so nobody uses them again. Their blocks can
//! still be freed, into inboxes that nobody empties but that a flush still purges. The source's lock
//! must be held across the fork. [`PerThread`] ensures this itself; for other heaps there is
//! [`Heaps::lock_source`]. [`PerThread`] also prevents takeovers during a fork. With other heaps,
//! blocks that are out of their inbox at that moment are lost to the child, and the child purges no
//! inbox.
//!
//! # Where to find what
//!
//! | module | what it contains |
//! | --- | --- |
//! | `process` | the heaps of this process: the thread's slot, thread exit, fork, `PerThread`, `OwnedHeap` |
//! | `heaps` | a heap with its inbox and outbox; how heaps are opened, owned and counted |
//! | `freed` | freed blocks on their way: outbox, batches, inbox, the table of a takeover |
//! | `heap_list`, `shared_source`, `shared_arenas` | what all heaps share |

#![cfg_attr(loom, expect(dead_code, reason = "used by `process` only"))]

mod freed;
mod heap_list;
mod heaps;
mod parts;
// Loom's types cannot be in a static.
#[cfg(not(loom))]
mod process;
mod shared_arenas;
mod shared_source;

pub use heaps::{Heaps, owner::Owner, stats::HeapsStats};
/// The layers below, whose types appear in the signatures here.
pub use obmalloc;
pub use obmalloc::raw_mem;
pub use parts::{Parts, ThreadGeometry};
#[cfg(not(loom))]
pub use process::{CurrentHeaps, OwnedHeap, PerThread};
pub use shared_source::SourceGuard;
