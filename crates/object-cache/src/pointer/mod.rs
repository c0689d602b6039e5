//! Owning pointers to objects in a cache. A [`Cached`] is the only owner of its object. Several
//! [`CachedRc`] pointers share an object, and count their references to it.

mod cached;
mod cached_rc;

pub use cached::Cached;
pub use cached_rc::{CachedRc, RcBox};
