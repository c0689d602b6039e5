//! Sources and allocators that count their calls and fail on demand.
//!
//! ```text
//!   test ──── Faults ◄──── FailingArenas { source }   inside the heap
//!              shared ◄─── FailingAlloc  { lower }    below the heap
//! ```
//!
//! The test holds a clone of the [`Faults`], because the heap owns the source and the allocator.

mod alloc;
mod arenas;
mod faults;

pub use self::{
    alloc::{FailingAlloc, LiveBlocks},
    arenas::FailingArenas,
    faults::{Faults, Plan, Tally},
};
