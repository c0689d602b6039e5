//! obmalloc as a program's allocator: for all of it, or for some collections.
//!
//! ```text
//!   Box, Vec, HashMap …                          Vec<_, &LocalHeap> …
//!        │ #[global_allocator]                        │ Allocator (allocator-api2)
//!        ▼                                            ▼
//!    ObMalloc                                      LocalHeap
//!        │ to 512 bytes ─► a heap for each thread      │ to 512 bytes ─► a heap of its own
//!        └ above ────────► the C library               └ above ────────► the C library, on a list
//! ```
//!
//! # A program's allocator
//!
//! ```
//! #[global_allocator]
//! static GLOBAL: global_alloc::ObMalloc = global_alloc::ObMalloc::new();
//!
//! let squares: Vec<Box<u64>> = (0..10).map(|number| Box::new(number * number)).collect();
//! assert_eq!(*squares[9], 81);
//! ```
//!
//! It works from the first instruction of the process to the last: before `main`, in destructors
//! of thread-locals after the thread's heap is gone, in a signal handler that interrupted neither it
//! nor the C library's allocator, while the process exits, and in the child of a fork, whatever the
//! other threads were doing.
//!
//! # What stays for a while
//!
//! Up to 16 MiB of arenas are kept for later requests, if arenas were asked for within a second
//! before they came back. What other threads freed of a thread's blocks waits until that thread
//! needs blocks, sends others home, or ends; what it freed of theirs, until it has freed 32 of one
//! heap, or another's, or ends. [`ObMalloc::flush`] waits for none of it.
//!
//! A thread that waits does none of this, and its heap cannot be entered. Other threads therefore
//! purge the pages that hold only blocks which were freed for it: at every [`ObMalloc::flush`], and
//! when about 16 MiB of such blocks are new in the process, and at most 256 KiB for each thread.
//! What the waiting thread freed itself stays with it: at most one empty arena of its own, arenas
//! that count towards the 16 MiB above, and the free part of each arena that has a block in use.
//!
//! # Rules
//!
//! 1. The layout tells where memory came from: freeing does not ask whose an address is.
//! 2. So a small request never falls to the C library: when no arena can be had, it fails.
//! 3. Alignments above 16 are the pools' too, as long as a block of at most 512 bytes can serve
//!    them; a class whose blocks are a multiple of the alignment does.
//! 4. A reallocation keeps the block as long as more than three quarters of it are needed, or no
//!    smaller one would do. Memory that grows by less than a quarter gets room for an eighth more.
//!
//! It needs a Unix: aligned memory above 512 bytes comes from `posix_memalign`.

#[cfg(any(feature = "allocator-api2-02", feature = "allocator-api2-04"))]
mod allocator_api;
mod any_layout;
mod large;
mod large_list;
mod layout;
mod local_heap;
mod ob_malloc;

pub use local_heap::LocalHeap;
pub use ob_malloc::ObMalloc;

/// The examples of the workspace's own page.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Workspace;
