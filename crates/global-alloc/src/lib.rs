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
//! It works from the first instruction of the process to the last: before `main`, in every
//! destructor that runs when a thread ends, while the process exits, and in the child of a fork,
//! whatever the other threads were doing. It also works in a signal handler, provided that the
//! handler interrupted neither this allocator nor the C library's.
//!
//! # Coroutines
//!
//! Stackful coroutines, such as those of `may`, `generator` and `corosensei`, may allocate and free
//! anywhere. At every switch they may move to another thread, and any thread may free their memory.
//! The allocator finds the heap of the current thread again in each call, and calls no code of its
//! user, so no switch can happen inside it. The one exception is a signal handler: it must not
//! switch stacks if it may have interrupted the allocator.
//!
//! A [`LocalHeap`] belongs to one thread at a time. A coroutine that borrows one must not move to
//! another thread.
//!
//! # Shared libraries
//!
//! A library that is loaded with `dlopen` may use this allocator as its own. On x86-64 Linux it
//! then takes a few bytes of the space that the C library reserves in each thread for such
//! libraries. If a process loads so many of them that `dlopen` fails with "cannot allocate memory
//! in static TLS block", build them with the feature `dynamic-tls`. The same feature is needed if
//! this crate is part of a Rust `dylib`. It costs a function call in each allocation and free. Do
//! not unload a library while a thread still uses its memory.
//!
//! # Memory of other allocators
//!
//! Memory must be freed by the allocator that it came from. A debug build checks each pointer that
//! is freed or resized. If the pointer cannot be memory for its layout, the process ends with one
//! line on stderr. A release build does not check: a small layout makes it read and write the
//! surroundings of the pointer, which is undefined behaviour and often a crash. A layout of more
//! than 512 bytes passes the pointer on to the C library. Memory of this allocator that is given to
//! C's `free` ends the process in the C library, except for what is larger than 512 bytes.
//!
//! # What stays for a while
//!
//! Up to 16 MiB of arenas are kept for later requests, if arenas were asked for within a second
//! before they came back. What other threads freed of a thread's blocks waits until that thread
//! needs blocks, sends others home, or ends; what it freed of theirs, until it has freed 32 of one
//! heap, or another's, or ends. [`ObMalloc::flush`] waits for none of it.
//!
//! A thread that waits does none of this, and no other thread can enter its heap. Other threads
//! therefore purge every page that holds only blocks which were freed for the waiting thread. They
//! do so at every [`ObMalloc::flush`], and when more than about 16 MiB of such blocks are new in
//! the process. Up to 256 KiB for each thread can stay unpurged in addition. Blocks that the
//! waiting thread freed itself are not affected. It keeps at most one empty arena of its own,
//! arenas that count towards the 16 MiB above, and the free part of each arena that has a block in
//! use.
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
mod foreign;
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
