//! obmalloc as the allocator of a Rust program: [`ObMalloc`] for all of it, [`LocalHeap`] for
//! single collections.
//!
//! ```
//! use global_alloc::ObMalloc;
//!
//! #[global_allocator]
//! static GLOBAL: ObMalloc = ObMalloc::new();
//!
//! let squares: Vec<Box<u64>> = (0..10).map(|number| Box::new(number * number)).collect();
//! assert_eq!(*squares[9], 81);
//! ```
//!
//! # Overview
//!
//! ```text
//!   Box, Vec, HashMap …                          Vec<_, &LocalHeap> …
//!        │ #[global_allocator]                        │ Allocator (allocator-api2)
//!        ▼                                            ▼
//!    ObMalloc                                      LocalHeap
//!        │ to 512 bytes ─► a heap for each thread      │ to 512 bytes ─► its own heap
//!        └ above ────────► the C library               └ above ────────► the C library, on a list
//! ```
//!
//! `ObMalloc` works from the first instruction of the process to the last: before `main`, in every
//! destructor that runs when a thread ends, while the process exits, and in the child of a fork,
//! whatever the other threads were doing. It also works in a signal handler, provided that the
//! handler interrupted neither this allocator nor the C library's.
//!
//! # Features
//!
//! - **`allocator-api2-02`**, **`allocator-api2-04`**: [`ObMalloc`] and `&LocalHeap` implement
//!   `Allocator` of allocator-api2 0.2 (used by hashbrown 0.17 and bumpalo 3) or 0.4 (used by
//!   talc 5).
//! - **`dynamic-tls`**: finds the heap of a thread by a function call, see "Shared libraries".
//!
//! # Coroutines
//!
//! Stackful coroutines, such as those of `may`, `generator` and `corosensei`, may allocate and free
//! anywhere. At every switch they may move to another thread, and any thread may free their memory.
//! The allocator finds the heap of the current thread again in each call, and calls no code of its
//! user, so no switch can happen inside it. The one exception is a signal handler. It must not
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
//! line on stderr. A release build does not check. With a layout of at most 512 bytes, it reads and
//! writes memory around the pointer, which is undefined behaviour and often a crash. With a larger
//! layout, it passes the pointer to the C library. C's `free` aborts the process if it gets memory
//! of this allocator, unless the memory is larger than 512 bytes.
//!
//! # Retained memory
//!
//! Up to 16 MiB of empty arenas are retained, if arenas were requested within a second before they
//! became empty. Blocks that other threads freed wait until their owner runs out of blocks, sends
//! blocks itself, or ends. Blocks that a thread freed for others wait until it has freed 32 blocks
//! of one heap, frees a block of another heap, or ends. [`ObMalloc::flush`] ends all of these waits.
//!
//! An idle thread does none of this, and no other thread can enter its heap. Other threads
//! therefore purge every page that holds only blocks which were freed for the idle thread. They do
//! so at every [`ObMalloc::flush`], and when more than about 16 MiB of such blocks are new in the
//! process. Up to 256 KiB for each thread can stay unpurged in addition. Blocks that the idle
//! thread freed itself are not affected. It retains at most one empty arena of its own, arenas that
//! count towards the 16 MiB above, and the free part of each arena that has a block in use.
//!
//! # Rules
//!
//! 1. The layout tells which allocator served memory, so freeing does not look the address up.
//! 2. A small request therefore never falls back to the C library. If no arena is available, it
//!    fails.
//! 3. The pools also serve alignments above 16, if a class of at most 512 bytes has blocks that are
//!    a multiple of the alignment.
//! 4. A reallocation keeps the block if more than three quarters of it are needed, or if no smaller
//!    block would do. Memory that grows by less than a quarter gets room for an eighth more.
//!
//! The crate needs a Unix, because aligned memory above 512 bytes comes from `posix_memalign`.

#[cfg(any(feature = "allocator-api2-02", feature = "allocator-api2-04"))]
mod allocator_api;
mod classes;
mod foreign;
mod large;
mod large_list;
mod layouts;
mod local_heap;
mod ob_malloc;

pub use local_heap::LocalHeap;
pub use ob_malloc::ObMalloc;

/// The examples of the crate's README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The examples of the workspace's README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Workspace;
