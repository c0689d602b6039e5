//! The allocators that are compared: the global allocator of the process, our heap used directly,
//! CPython's own allocator, and a minimal allocator with size classes.

mod cpython;
mod floor;
mod global;
mod heap;

pub use cpython::{CPython, LIBPYTHON};
pub use floor::Floor;
pub use global::Global;
pub use heap::{CPythonRulesHeap, OwnHeap, ThreadRulesHeap};
