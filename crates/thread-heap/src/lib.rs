#![doc = include_str!("../README.md")]
//! # What happens before what
//!
//! Each row of this table names two events, of which the first must happen before the second. The
//! third column contains the atomic operations that ensure this order. Each test in the last column
//! weakens the memory ordering of one operation, and checks that loom, a model checker, then finds
//! a bug.
//!
//! | from | to | by | model |
//! | --- | --- | --- | --- |
//! | the last use of a block, and what a sender writes into the block | the reuse of the block by its owner | inbox: push Release, take Acquire | `a_push_without_release_is_rejected`, `a_take_without_acquire_is_rejected` |
//! | what a sender read in the header of a block's pool | the owner's next change of what was read | inbox: push Release, take Acquire | `a_header_that_is_read_before_a_push_without_release_is_rejected`, `a_header_that_is_changed_after_a_take_without_acquire_is_rejected` |
//! | what a sender wrote into blocks | a takeover of these blocks by another thread | inbox: push Release, take over Acquire | `a_takeover_without_acquire_is_rejected` |
//! | what a takeover wrote into blocks and into its table | the owner's use of the blocks and the table | inbox: push Release, take Acquire | `nodes_pushed_back_without_release_are_rejected` |
//! | everything that an owner did to its heap | everything that the next owner does | inbox: abandon Release, adopt Acquire | `an_abandonment_without_release_is_rejected`, `an_adoption_without_acquire_is_rejected` |
//! | the creation of a thread heap | its adoption by another thread | heap list: add Release, walk Acquire | `a_heap_added_without_release_is_rejected`, `a_walk_without_acquire_is_rejected` |
//! | the creation of a thread heap | its removal from the stack of abandoned heaps | heap stack: link Release, unlink Acquire | `a_link_without_release_is_rejected`, `an_unlink_without_acquire_is_rejected` |
//! | the abandonment of a heap that is marked as stacked | the attempt of the thread that removes the mark to adopt the heap | heap stack: set mark Release, remove mark Acquire | `a_mark_set_relaxed_is_rejected`, `a_mark_removed_relaxed_is_rejected` |
//! | the zeroes in a new node of the arena map | a look-up in this node | map: publish Release, find Acquire, lose Acquire | `a_leaf_published_relaxed_is_rejected`, `a_leaf_found_relaxed_is_rejected`, `a_leaf_of_another_taken_relaxed_is_rejected` (obmalloc) |
//! | the removal of an arena from the map | the entry for an arena that is mapped at the same address later | the source's lock | `an_arena_retracted_after_it_was_unmapped_is_rejected` |
//! | everything that a thread did to its heap, if the thread ended without closing the heap | everything that the next thread with the same thread-local memory does to the heap | the C library, before it reuses the thread-local memory | |
//! | the last use of a large block | the reuse of its memory | the source's lock | |
//! | an arena's entry in the map | a look-up of a block in this arena | whatever passed the block from its allocating thread to the reader | |
//!
//! # Rules
//!
//! 1. Only the owner of a heap uses the heap's pools. Methods that change the heap borrow
//!    its [`Owner`] mutably.
//! 2. A heap gets its arenas from the arena source, and the memory for its own records from the
//!    metadata allocator. Neither of them may call into a heap, because the heap that called it is
//!    still mutably borrowed.
//! 3. A heap is never freed, so any thread can look up the heap of any live block.
//! 4. From the address of a live block, any thread can compute where the block's tag is stored. The
//!    tag identifies the heap that owns the block. A large block belongs to no heap, so its tag is
//!    `HeapTag::LARGE`.
//!
//! # Fork
//!
//! A forked child contains only the forking thread. The child never allocates from the heaps of
//! other threads, because a thread may have been changing its heap during the fork. The child can
//! free blocks of these heaps, but never reuses them. When the child flushes its own heap, it also
//! purges the pages that contain only such freed blocks.
//!
//! The type [`PerThread`] prepares for a fork automatically. A program that uses other [`Heaps`]
//! must hold the lock of [`Heaps::lock_source`] across a fork, because the child could otherwise
//! find the arena source locked forever. Even then, if another thread is purging the freed blocks
//! that wait in the inbox of a heap during the fork, the child loses these blocks. The child can
//! also never purge an inbox of these `Heaps`, because its copy of the lock for purging stays
//! locked.
//!
//! # Where to find what
//!
//! | module | what it contains |
//! | --- | --- |
//! | `process` | the heaps of this process: the thread's slot, thread exit, fork, `PerThread`, `OwnedHeap`; requests of any size: `ThreadMalloc` |
//! | `heaps` | a heap with its inbox and outbox; opening, owning and counting heaps; large blocks |
//! | `freed` | how freed blocks reach their owner: outbox, batches, inbox, tables of takeovers |
//! | `heap_list`, `heap_stack`, `shared_source`, `shared_arenas`, `large_counts` | what all heaps share |

#![cfg_attr(loom, expect(dead_code, reason = "used by `process` only"))]

#[cfg(test)]
#[macro_use]
mod weak_orders;

mod before_refusal;
mod freed;
mod heap_list;
mod heap_stack;
mod heaps;
mod large_counts;
mod parts;
// Loom's atomics have no `const` constructors, so `process` cannot keep them in statics.
#[cfg(not(loom))]
mod process;
mod shared_arenas;
mod shared_source;

pub use heaps::{Heaps, figures::Figures, owner::Owner, render::Detail, stats::HeapsStats};
/// The crates below this one, whose types appear in its signatures.
pub use obmalloc;
pub use obmalloc::raw_mem;
pub use parts::{Parts, ThreadGeometry};
#[cfg(not(loom))]
pub use process::{CurrentHeaps, OwnedHeap, PerThread, ThreadMalloc};
pub use shared_source::SourceGuard;
