//! C vtables for allocators, in the layout of CPython's `PyMemAllocatorEx`, and a table of the
//! allocators in force.
//!
//! ```
//! use allocator_api::{CAllocator, Domain, DomainTable, hooks::Counting};
//! use raw_mem::{Malloc, MemAlloc};
//!
//! static TABLE: DomainTable = DomainTable::new([CAllocator::of(&Malloc); 3]);
//! static HOOK: Counting<Malloc> = Counting::new(Malloc, 512);
//!
//! // SAFETY: the hook passes every request to malloc, so it can free malloc's older blocks.
//! unsafe { TABLE.set(Domain::Obj, CAllocator::of(&HOOK)) }?;
//! let block = TABLE.allocator(Domain::Obj).malloc(40);
//! // SAFETY: the block is live and not used again.
//! unsafe { TABLE.allocator(Domain::Obj).free(block) };
//! assert_eq!(HOOK.counts().small.requests, 1);
//! # Ok::<(), allocator_api::SetError>(())
//! ```
//!
//! # Overview
//!
//! ```text
//!   malloc(domain, n)
//!        │
//!   DomainTable ── Raw ──► VTable { ctx, malloc, calloc, realloc, free }
//!               ├─ Mem ──►      │
//!               └─ Obj ──►      ▼
//!                          a hook: a MemAlloc around a MemAlloc
//!                               │
//!                          a heap, malloc, … : a MemAlloc
//! ```
//!
//! - [`VTable`] and [`ArenaVTable`] have the memory layout of CPython's `PyMemAllocatorEx` and
//!   `PyObjectArenaAllocator`. [`VTable::of`] makes a vtable of any
//!   [`MemAlloc`](raw_mem::MemAlloc). [`CAllocator`] makes a `MemAlloc` of any vtable.
//! - [`Domain`] names the three families of requests, and [`DomainTable`] holds the allocator of
//!   each. An allocator can be replaced while other threads allocate. Each of them calls either
//!   the old vtable or the new one, and never a mixture of both.
//! - [`hooks`] are allocators that wrap another allocator and observe its requests.

mod arena_vtable;
mod c_allocator;
mod domain;
mod domain_table;
pub mod hooks;
mod record;
mod vtable;

pub use arena_vtable::{ArenaVTable, LockedSource};
pub use c_allocator::CAllocator;
pub use domain::Domain;
pub use domain_table::{DomainAllocator, DomainTable, SetError};
/// The crate below, whose types appear in the signatures of this one.
pub use raw_mem;
pub use vtable::VTable;

/// The example of the crate's README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
