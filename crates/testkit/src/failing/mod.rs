//! Arena sources and allocators that count their calls and fail on demand.
//!
//! ```text
//!   test ──── Faults ◄──── FailingArenas { source }   inside the heap
//!              shared ◄─── FailingAlloc  { lower }    below the heap
//! ```
//!
//! The heap under test owns the source and the allocator, so the test cannot reach them. It keeps a
//! clone of the [`Faults`] instead, which shares its state with them.

mod alloc;
mod arenas;
mod faults;

pub use self::{
    alloc::{FailingAlloc, LiveBlocks},
    arenas::FailingArenas,
    faults::{Faults, Plan, Tally},
};
