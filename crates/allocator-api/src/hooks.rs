//! Allocators that observe or check the requests to another allocator.
//!
//! Hooks can be stacked in any order, because a hook is a [`MemAlloc`](raw_mem::MemAlloc) over any
//! other one.
//!
//! | hook | what it does |
//! | --- | --- |
//! | [`Counting`] | counts requests and bytes |
//! | [`Debug`](struct@Debug) | finds overflows, double frees and other misuse, as CPython's debug hooks do |
//! | [`Trace`] | knows which blocks are in use, and where they were allocated, as tracemalloc does |

mod counting;
mod debug;
mod trace;

pub use counting::{Counting, Counts, Tally};
pub use debug::{Debug, Host, Misuse, Operation, Standalone, Style};
pub use trace::{Amount, Difference, Figures, Place, Snapshot, Trace, Traced, Traces};
