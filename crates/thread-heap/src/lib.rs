#![doc = include_str!("../README.md")]
//!
//! # What happens before what
//!
//! The table lists the pairs of events between which this crate establishes a happens-before
//! relation, and the atomic operations that do so. Loom rejects each model in the last column,
//! because the model lacks one of the orderings of its row.
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
//! 1. Only the owner of a heap enters the heap. An [`Owner`] can neither be copied nor leave its
//!    thread, and every operation that changes the heap borrows the `Owner` mutably.
//! 2. The source of arenas and the allocator of metadata never call back into a heap. A heap calls
//!    them while it is borrowed mutably, so a call back could borrow the same heap a second time.
//! 3. A heap is never freed. Every block carries the address of its heap as a tag, so the tag stays
//!    valid for as long as the block is in use.
//!
//! # Fork
//!
//! After a fork, only the forking thread exists in the child. The heap of this thread stays usable.
//! Another thread may have been inside its own heap at the time of the fork, so the child's copy of
//! that heap may be inconsistent, and the child never enters it. The blocks of such a heap can
//! still be freed: they go to the heap's inbox. No owner will ever empty this inbox, but a flush
//! still purges the pages of the blocks that wait there.
//!
//! The lock of the source must be held across the fork. [`PerThread`] does this by itself. Programs
//! that create other [`Heaps`] must call [`Heaps::lock_source`] before they fork. [`PerThread`]
//! also prevents takeovers of inboxes during a fork. With other [`Heaps`], a takeover may have
//! taken blocks out of an inbox at the moment of the fork. These blocks are lost to the child, and
//! the child cannot purge any inbox, because the lock of takeovers stays locked.
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
// Under loom, these heaps cannot be statics, because loom's atomics have no `const` constructors.
#[cfg(not(loom))]
mod process;
mod shared_arenas;
mod shared_source;

pub use heaps::{Heaps, owner::Owner, stats::HeapsStats};
/// The layers below this crate. Their types appear in the signatures of this crate.
pub use obmalloc;
pub use obmalloc::raw_mem;
pub use parts::{Parts, ThreadGeometry};
#[cfg(not(loom))]
pub use process::{CurrentHeaps, OwnedHeap, PerThread};
pub use shared_source::SourceGuard;
