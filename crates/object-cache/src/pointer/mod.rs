mod cached;
mod cached_rc;

pub use cached::Cached;
pub use cached_rc::{CachedRc, RcBox};
