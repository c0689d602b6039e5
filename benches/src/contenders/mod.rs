//! The allocators that are compared: the global allocator of the process, our heap by itself,
//! CPython's allocator, and the least that an allocator of size classes does.

mod cpython;
mod floor;
mod global;
mod heap;

pub use cpython::{CPython, LIBPYTHON};
pub use floor::Floor;
pub use global::Global;
pub use heap::{CPythonRulesHeap, OwnHeap, ThreadRulesHeap};
