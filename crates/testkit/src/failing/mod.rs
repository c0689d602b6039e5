//! Arena sources and allocators that count their calls and fail on demand.
//!
//! A test keeps a clone of the [`Faults`] to control an allocator that a heap owns.

mod alloc;
mod arenas;
mod faults;

pub use self::{
    alloc::{FailingAlloc, LiveBlocks},
    arenas::FailingArenas,
    faults::{Faults, Plan, Tally},
};
