//! A real CPython in this process, whose `pymalloc` serves only the test.
//!
//! ```text
//!                       mem, obj ──────────► malloc          the interpreter's own objects
//!   tests ──► Vtable (saved) ─► pymalloc ─┬► arena hook      only ours, and empty at the start
//!                                         └► raw: malloc
//! ```
//!
//! The functions of `pymalloc` are read before the interpreter starts. After that, `malloc` serves
//! the interpreter's own requests. From 3.12 on `pymalloc` needs a thread state, so the interpreter
//! is always started. A process can start only one, so [`in_each`] makes a process for each.

mod arena_hook;
mod each;
mod headers;
mod interpreter;
mod vtable;

pub use self::{each::in_each, interpreter::Interpreter, vtable::Vtable};
