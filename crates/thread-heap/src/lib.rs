//! The heap for many threads: a [`Heap`](obmalloc::Heap) for each, one list and one map between
//! them.
//!
//! ```text
//!   thread A                        thread B                       thread C has ended
//!   ┌──────────────┐                ┌──────────────┐               ┌──────────────┐
//!   │ thread heap  │                │ thread heap  │               │ thread heap  │
//!   │   Heap       │◄── own blocks  │   Heap       │               │   Heap       │ abandoned:
//!   │   inbox ◄────┼── A's blocks ──┼── outbox     │── C's blocks ─┼─► inbox      │ who frees
//!   └──────┬───────┘   freed by B   └──────┬───────┘   freed by B  └──────┬───────┘ owns it for
//!          │                               │                              │         a moment
//!   ───────┴─────────── arenas ────────────┴──────────── arenas ──────────┴────────
//!                one source, behind a lock that slow paths take
//!                one arena map, read without a lock
//! ```
//!
//! - **Whose is a block?** Its arena carries the tag of its heap, which is read without a lock. A
//!   thread that frees its own block does what the single-owner heap does, with no atomics.
//! - **A remote free** goes to the outbox of the freeing thread, and with up to 31 others for the
//!   same heap into that heap's inbox, by one compare-and-swap. One of them carries the addresses
//!   of the others, so that most freed blocks are not touched before they are home. The owner takes
//!   the whole inbox when it runs out of blocks at hand, and when it sends blocks itself.
//! - **An idle owner** does neither, and its heap cannot be entered. But the blocks in an inbox
//!   belong to whoever takes them out, so another thread can take the inbox over. That thread
//!   purges every page that holds nothing but waiting blocks, and pushes back a small table of
//!   them. A [`flush`](PerThread::flush) by any thread does this to all inboxes. A sender does it
//!   to each inbox with at least 256 KiB of new blocks, when more than 16 MiB of new blocks wait in
//!   all inboxes together. So about 16 MiB, and 256 KiB for each owner, wait at most before they
//!   are purged. A page that still has a block in use at that time waits for the next takeover.
//! - **A thread that ends** empties its inbox, gives back what arenas it can, and abandons its
//!   heap. A starting thread adopts an abandoned heap as it is. Who frees a block into one that
//!   nobody adopted becomes its owner for that moment: it frees the block, gives back what arenas
//!   it can, and abandons the heap again. So the last free gives the last arena back, as soon as it
//!   is sent: in the outbox of a thread that goes on without frees of others, up to 32 blocks wait
//!   for its [`flush`](PerThread::flush) or its end.
//!
//! # What happens before what
//!
//! | from | to | by | without it fails |
//! | --- | --- | --- | --- |
//! | a block's last use, and what is written into it for its way | its reuse by the owner | inbox: push Release, take Acquire | `a_push_without_release_is_rejected`, `a_take_without_acquire_is_rejected` |
//! | what a sender wrote into blocks | a takeover of them by another thread | inbox: push Release, take over Acquire | `a_takeover_without_acquire_is_rejected` |
//! | what a takeover wrote into blocks, and the table | the owner's use of both | inbox: push Release, take Acquire | `nodes_pushed_back_without_release_are_rejected` |
//! | all that an owner did to its heap | what the next owner does | inbox: abandon Release, adopt Acquire | `an_abandonment_without_release_is_rejected`, `an_adoption_without_acquire_is_rejected` |
//! | the making of a thread heap | its adoption by another thread | registry: add Release, walk Acquire | `a_heap_registered_without_release_is_rejected`, `a_walk_without_acquire_is_rejected` |
//! | the zeroes of a node of the arena map | a look-up in it | map: publish Release, find Acquire, lose Acquire | `a_leaf_published_relaxed_is_rejected`, `a_leaf_found_relaxed_is_rejected`, `a_leaf_of_another_taken_relaxed_is_rejected` (obmalloc) |
//! | an arena struck out of the map | its entry when it is mapped again | the source's lock | `an_arena_struck_out_after_it_went_back_is_rejected` |
//! | all that a thread did to a heap which it left open when it ended | what the next thread with the same place for thread-locals does | the C library, before it uses the place again | |
//! | an arena's entry in the map | a look-up of a block in it | whatever brought the block to the reader | |
//!
//! # Fork
//!
//! The child of a process with many threads has the forking thread alone. Its heap goes on. The
//! heaps of the other threads may have been in the middle of anything, so they stay as they are:
//! their blocks can be freed (into an inbox that nobody empties, but that a flush still purges),
//! their memory is not used again. The source's lock must be held across the fork. [`PerThread`]
//! sees to that itself; for other heaps there is [`Heaps::close_source`]. [`PerThread`] also lets no
//! thread take an inbox over during a fork. With other heaps, blocks that were taken out at that
//! moment are lost to the child, and the child purges no inbox.

#![cfg_attr(loom, expect(dead_code, reason = "what `current` alone uses"))]

// A model passes handles: loom's types cannot be in a static.
mod carrier;
#[cfg(not(loom))]
mod current;
mod heaps;
mod inbox;
mod link;
mod outbox;
mod parts;
mod registry;
mod shared_arenas;
mod thread_heap;
mod waiting_pools;

#[cfg(not(loom))]
pub use current::{CurrentHeaps, OwnedHeap, PerThread};
pub use heaps::{Heaps, HeapsStats, SourceGuard};
/// The layers below: their types stand in the signatures here.
pub use obmalloc;
pub use obmalloc::raw_mem;
pub use parts::{Parts, ThreadGeometry};
pub use thread_heap::ThreadHeap;
