//! Owning pointers to objects in a cache. One type of pointer has a single owner, and one counts
//! references.

mod cached;
mod cached_rc;

pub use cached::Cached;
pub use cached_rc::{CachedRc, RcBox};
