//! Arena sources and allocators that count their calls and fail on demand.
//!
//! ```text
//!   test ──── Faults ◄──── FailingArenas { source }   inside the heap
//!              shared ◄─── FailingAlloc  { lower }    below the heap
//! ```
//!
//! A test moves the arena source and the allocator into the heap under test, so the test cannot
//! reach them afterwards. To control them, the test keeps a clone of their [`Faults`], which shares
//! its state with the original.

mod alloc;
mod arenas;
mod faults;

pub use self::{
    alloc::{FailingAlloc, LiveBlocks},
    arenas::FailingArenas,
    faults::{Faults, Plan, Tally},
};
