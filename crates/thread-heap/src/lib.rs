//! A small-object allocator for many threads, in which each thread has a heap of its own and any
//! thread frees any block.
//!
//! ```
//! use thread_heap::{PerThread, obmalloc::Pymalloc, raw_mem::{Malloc, MemAlloc}};
//!
//! // SAFETY: malloc does not serve memory of the heaps' arenas.
//! static ALLOCATOR: Pymalloc<PerThread, Malloc> = unsafe { Pymalloc::new(PerThread, Malloc) };
//!
//! let block = ALLOCATOR.malloc(40).expect("there is memory");
//! // SAFETY: the block came from `ALLOCATOR`, and is not used again.
//! unsafe { ALLOCATOR.free(Some(block)) };
//! PerThread.flush(); // before the thread waits for a long time
//! ```
//!
//! [`PerThread`] is the heap of the calling thread. [`OwnedHeap`] is a heap that moves between
//! threads, for a runtime with a lock of its own. [`Heaps`] is a family of heaps over another source
//! of arenas; each has an [`Owner`].
//!
//! ```text
//!   thread A                        thread B                       thread C has ended
//!   ┌──────────────┐                ┌──────────────┐               ┌──────────────┐
//!   │ thread heap  │                │ thread heap  │               │ thread heap  │
//!   │   Heap       │◄── own blocks  │   Heap       │               │   Heap       │ abandoned:
//!   │   inbox ◄────┼── A's blocks ──┼── outbox     │── C's blocks ─┼─► inbox      │ the freeing
//!   └──────┬───────┘   freed by B   └──────┬───────┘   freed by B  └──────┬───────┘ thread owns it
//!          │                               │                              │         for a moment
//!   ───────┴─────────── arenas ────────────┴──────────── arenas ──────────┴────────
//!                one source behind a lock, which slow paths take
//!                one arena map, which is read without a lock
//! ```
//!
//! - **The owner of a block** is found through its arena, which carries the tag of its heap. Reading
//!   the tag takes no lock. A thread that frees its own block does the same as a single-owner
//!   heap, without atomics.
//! - **A remote free** puts the block into the outbox of the freeing thread. Up to 32 blocks of one
//!   heap are pushed to that heap's inbox together, by one compare-and-swap. One block of such a
//!   batch holds the addresses of the others, so most freed blocks are not touched before their
//!   owner reclaims them. The owner empties its inbox when it has no free block left, and when it
//!   sends blocks itself.
//! - **An idle owner** does neither, and no other thread may enter its heap. But the blocks in an
//!   inbox belong to whoever takes them out, so another thread can take the inbox over. That thread
//!   purges every page that contains waiting blocks only, and pushes back a small table of the
//!   blocks. A [`flush`](PerThread::flush) by any thread does this to all inboxes. A sender does it
//!   to each inbox with at least 256 KiB of new blocks, when more than 16 MiB of new blocks wait in
//!   all inboxes together. So about 16 MiB, and 256 KiB for each owner, wait at most before they
//!   are purged. A page that still has a block in use at that time waits for the next takeover.
//! - **A thread that ends** empties its inbox, returns empty arenas to the source, and abandons its
//!   heap. A starting thread adopts an abandoned heap as it is. A thread that sends blocks to an
//!   abandoned heap becomes its owner for a moment: it frees the blocks, returns empty arenas, and
//!   abandons the heap again. So the last free unmaps the last arena as soon as it is sent. Up to 32
//!   blocks may wait in the outbox of a thread that frees no other blocks, until its
//!   [`flush`](PerThread::flush) or its end.
//!
//! # What happens before what
//!
//! Each row names the tests that fail without it.
//!
//! | from | to | by | tests |
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
//! 3. A thread heap is never freed, so a block's tag stays valid as long as the block.
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
//! # Features
//!
//! - `dynamic-tls`: finds the thread's heap by a function call, as on targets other than x86-64
//!   Linux. A shared library that is loaded with `dlopen` then needs no static thread-local storage.
//!
//! # Where to find what
//!
//! | module | what it contains |
//! | --- | --- |
//! | `process` | the heaps of this process: the thread's slot, thread exit, fork, `PerThread`, `OwnedHeap` |
//! | `owner` | ownership of a heap as a type |
//! | `heaps` | all heaps over one source: opening, remote frees, takeovers, figures |
//! | `thread_heap` | one heap with its inbox and outbox |
//! | `freed` | freed blocks on their way: outbox, batches, inbox, the table of a takeover |
//! | `heap_list`, `shared_source`, `shared_arenas` | what all heaps share |

#![cfg_attr(loom, expect(dead_code, reason = "used by `process` only"))]

mod freed;
mod heap_list;
mod heaps;
mod owner;
mod parts;
// Loom's types cannot be in a static.
#[cfg(not(loom))]
mod process;
mod shared_arenas;
mod shared_source;
mod thread_heap;

pub use heaps::{Heaps, stats::HeapsStats};
pub use owner::Owner;
pub use parts::{Parts, ThreadGeometry};
#[cfg(not(loom))]
pub use process::{CurrentHeaps, OwnedHeap, PerThread};
pub use shared_source::SourceGuard;
/// The layers below, whose types appear in the signatures here.
pub use obmalloc;
pub use obmalloc::raw_mem;
