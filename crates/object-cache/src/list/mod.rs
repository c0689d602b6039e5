//! Lists of free objects. The objects themselves hold the links.

mod chain;
mod link;
mod stack;
mod stats;
mod storage;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use chain::Chain;
pub(crate) use link::{FreeObject, Link};
pub(crate) use stack::BoundedStack;
pub use stats::{CacheStats, Cleared};
pub(crate) use storage::Storage;
