//! Hooks: allocators that stand over another one, hand every request on, and watch.
//!
//! A hook knows the [`MemAlloc`](raw_mem::MemAlloc) below it and nothing else; so hooks can be
//! stacked in any order, and what is not in the stack costs nothing. How one is set over a
//! domain's allocator and taken away again stands in the [crate's](crate) documentation.

mod count;

pub use count::{Counted, Counts, Tally};
