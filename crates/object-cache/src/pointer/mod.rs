//! Owning pointers to objects in a cache: one with a single owner, and one with many.

mod cached;
mod cached_rc;

pub use cached::Cached;
pub use cached_rc::{CachedRc, RcBox};
