//! Lists of free objects. The links of each list are stored in the free objects themselves.
//!
//! ```text
//!   stack     a bounded stack with figures, which is the list of every cache
//!   chain     a plain linked list, which moves objects from one stack to another
//!   link      the first words of a free object
//!   storage   how many bytes an object needs, and how they are requested from the layer below
//! ```

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
