#![doc = include_str!("../README.md")]

mod arena_vtable;
mod c_allocator;
pub mod counted;
mod domain;
mod domain_table;
mod global;
pub mod hooks;
mod limit;
mod record;
mod vtable;

pub use arena_vtable::{ArenaVTable, LockedSource};
pub use c_allocator::CAllocator;
pub use domain::Domain;
pub use domain_table::{DomainAllocator, DomainTable, SetError};
pub use global::{CFunctions, Global};
pub use limit::Limited;
/// Re-exported, because its types appear in the signatures of this crate.
pub use raw_mem;
pub use vtable::VTable;
