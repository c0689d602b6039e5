//! Arena sources and allocators that count their calls and fail on demand.
//!
//! A test keeps a clone of their [`Faults`], through which it controls them inside of a heap.

mod alloc;
mod arenas;
mod faults;

pub use self::{
    alloc::{FailingAlloc, LiveBlocks},
    arenas::FailingArenas,
    faults::{Faults, Plan, Tally},
};
