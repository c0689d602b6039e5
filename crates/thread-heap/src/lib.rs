#![doc = include_str!("../README.md")]
//!
//! # What happens before what
//!
//! Each row of the table names two events of which the first must happen before the second, and the
//! atomic operations that ensure this. Each model in the last column is a test that lacks one of
//! the orderings of its row. Loom rejects all of these models, which shows that the orderings are
//! needed.
//!
//! | from | to | by | model |
//! | --- | --- | --- | --- |
//! | the last use of a block, and what a sender writes into the block | the reuse of the block by its owner | inbox: push Release, take Acquire | `a_push_without_release_is_rejected`, `a_take_without_acquire_is_rejected` |
//! | what a sender wrote into blocks | a takeover of these blocks by another thread | inbox: push Release, take over Acquire | `a_takeover_without_acquire_is_rejected` |
//! | what a takeover wrote into blocks and into its table | the owner's use of the blocks and the table | inbox: push Release, take Acquire | `nodes_pushed_back_without_release_are_rejected` |
//! | everything that an owner did to its heap | everything that the next owner does | inbox: abandon Release, adopt Acquire | `an_abandonment_without_release_is_rejected`, `an_adoption_without_acquire_is_rejected` |
//! | the creation of a thread heap | its adoption by another thread | heap list: add Release, walk Acquire | `a_heap_added_without_release_is_rejected`, `a_walk_without_acquire_is_rejected` |
//! | the zeroes in a new node of the arena map | a look-up in this node | map: publish Release, find Acquire, lose Acquire | `a_leaf_published_relaxed_is_rejected`, `a_leaf_found_relaxed_is_rejected`, `a_leaf_of_another_taken_relaxed_is_rejected` (obmalloc) |
//! | the removal of an arena from the map | the entry for an arena that is mapped at the same address later | the source's lock | `an_arena_retracted_after_it_was_unmapped_is_rejected` |
//! | everything that a thread did to its heap, if the thread ended without closing the heap | everything that the next thread with the same thread-local memory does to the heap | the C library, before it reuses the thread-local memory | |
//! | an arena's entry in the map | a look-up of a block in this arena | whatever passed the block from its allocating thread to the reader | |
//!
//! # Rules
//!
//! 1. Only the owner of a heap enters the heap, which means that it allocates from the pools of the
//!    heap or frees blocks into them. An [`Owner`] can neither be copied nor be sent to another
//!    thread, and every operation that changes the heap borrows the `Owner` mutably.
//! 2. The arena source and the metadata allocator never call back into a heap. A heap calls them
//!    while the heap is borrowed mutably, so a call back into the same heap would borrow it a
//!    second time.
//! 3. A heap is never freed. From the address of a block, any thread can find a tag, which is the
//!    address of the block's heap. Because heaps are never freed, this address stays valid as long
//!    as the block is in use.
//!
//! # Fork
//!
//! After a fork, only the forking thread exists in the child. The heap of this thread stays usable.
//! Another thread may have been changing its own heap at the time of the fork, so the child's copy
//! of that heap may be inconsistent. The child therefore never allocates from such a heap. The
//! blocks of such a heap can still be freed, because freeing only puts them into the inbox of the
//! heap. In the child, no owner will ever empty this inbox, but a flush still purges pages that
//! contain only blocks waiting in it.
//!
//! The lock of the arena source must be held across the fork, so that the child's copy of the
//! source is consistent and can be unlocked. For the heaps of [`PerThread`], this crate does so by
//! itself. A program that creates other [`Heaps`] must call [`Heaps::lock_source`] before it forks.
//!
//! A takeover is the operation by which a thread takes the blocks out of another heap's inbox,
//! purges pages, and puts the blocks back. For the heaps of [`PerThread`], this crate also makes
//! sure that no takeover is running during a fork. For other [`Heaps`], another thread may be in
//! the middle of a takeover at the time of the fork. The child then loses the blocks that were
//! taken out, and cannot purge any inbox, because the lock for takeovers stays locked.
//!
//! # Where to find what
//!
//! | module | what it contains |
//! | --- | --- |
//! | `process` | the heaps of this process: the thread's slot, thread exit, fork, `PerThread`, `OwnedHeap` |
//! | `heaps` | a heap with its inbox and outbox; opening, owning and counting heaps |
//! | `freed` | how freed blocks reach their owner: outbox, batches, inbox, tables of takeovers |
//! | `heap_list`, `shared_source`, `shared_arenas` | what all heaps share |

#![cfg_attr(loom, expect(dead_code, reason = "used by `process` only"))]

mod freed;
mod heap_list;
mod heaps;
mod parts;
// This module is left out under loom, because it stores heaps in statics, and loom's atomics have
// no `const` constructors.
#[cfg(not(loom))]
mod process;
mod shared_arenas;
mod shared_source;

pub use heaps::{Heaps, owner::Owner, stats::HeapsStats};
/// The crates of the layers below, re-exported because their types appear in signatures of this
/// crate.
pub use obmalloc;
pub use obmalloc::raw_mem;
pub use parts::{Parts, ThreadGeometry};
#[cfg(not(loom))]
pub use process::{CurrentHeaps, OwnedHeap, PerThread};
pub use shared_source::SourceGuard;
