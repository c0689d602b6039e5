//! The facade: any allocator as a C vtable, any C vtable as an allocator, and the registry that
//! says which one serves which domain.
//!
//! ```text
//!   malloc(domain, n)
//!        │
//!   Registry ── Raw ──► MemAllocator { ctx, malloc, calloc, realloc, free }
//!            ├─ Mem ──►      │
//!            └─ Obj ──►      ▼
//!                       a hook: a MemAlloc around a MemAlloc
//!                            │
//!                       a heap, malloc, … : a MemAlloc
//! ```
//!
//! - [`MemAllocator`] and [`ArenaAllocator`] are, byte for byte, CPython's `PyMemAllocatorEx` and
//!   `PyObjectArenaAllocator`. [`MemAllocator::of`] makes a vtable of any
//!   [`MemAlloc`](raw_mem::MemAlloc), and [`Foreign`] a `MemAlloc` of any vtable.
//! - [`Domain`] names the three families of requests, and [`Registry`] holds the vtable of each.
//!   A vtable can be set while other threads allocate: they see the old one or the new one, whole.
//! - [`hooks`] are allocators that stand over another one and watch.
//!
//! # Setting a hook, and taking it away
//!
//! Read the vtable in force, put a hook around it, set the hook's vtable; later set the one that
//! was read. Blocks live through both changes, because the hook passes every one of them on.
//!
//! ```
//! use std::sync::OnceLock;
//!
//! use allocator_api::{Domain, Foreign, Registry, hooks::Counted};
//! use raw_mem::{Malloc, MemAlloc};
//!
//! static REGISTRY: Registry = Registry::new([Foreign::of(&Malloc); 3]);
//! static HOOK: OnceLock<Counted<Foreign>> = OnceLock::new();
//!
//! let before = REGISTRY.get(Domain::Obj);
//! let hook = HOOK.get_or_init(|| Counted::new(before, 512));
//! // SAFETY: the hook hands every block on to the allocator before it, so it can free those that
//! // are older than itself.
//! unsafe { REGISTRY.set(Domain::Obj, Foreign::of(hook)) }?;
//!
//! let block = REGISTRY.entry(Domain::Obj).malloc(40);
//!
//! // SAFETY: every block of the hook is one of the allocator below it.
//! unsafe { REGISTRY.set(Domain::Obj, before) }?;
//! // SAFETY: the block is live and not used again.
//! unsafe { REGISTRY.entry(Domain::Obj).free(block) };
//! assert_eq!(hook.counts().small.requests, 1);
//! # Ok::<(), allocator_api::SetError>(())
//! ```
//!
//! A hook lives forever (`of` asks for a `'static` reference): a thread may still be inside of it
//! when it is taken away.

mod arena_vtable;
mod domain;
mod foreign;
pub mod hooks;
mod record;
mod registry;
mod vtable;

pub use arena_vtable::{ArenaAllocator, LockedSource};
pub use domain::Domain;
pub use foreign::Foreign;
/// The layer below: its types stand in the signatures here.
pub use raw_mem;
pub use registry::{Entry, Registry, SetError};
pub use vtable::MemAllocator;
