//! The allocators that are compared.

mod cpython;
mod floor;
mod global;
mod heap;

pub use cpython::{CPython, LIBPYTHON};
pub use floor::Floor;
pub use global::Global;
pub use heap::{CPythonRulesHeap, OwnHeap, ThreadRulesHeap};
