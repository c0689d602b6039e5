//! A real CPython in this process, whose `pymalloc` serves only the test.
//!
//! ```text
//!                       mem, obj ──────────► malloc          the interpreter's own objects
//!   tests ──► Vtable (saved) ─► pymalloc ─┬► arena hook      only ours, and empty at the start
//!                                         └► raw: malloc
//! ```
//!
//! We read the functions of `pymalloc` before the interpreter starts, and then install `malloc` for
//! the interpreter's own requests. Afterwards only the test calls `pymalloc`. From CPython 3.12 on,
//! `pymalloc` needs a thread state, so we always start the interpreter. A process can start only
//! one interpreter, so [`in_each`] creates a process for each libpython.

mod arena_hook;
mod each;
mod headers;
mod interpreter;
mod vtable;

pub use self::{each::in_each, interpreter::Interpreter, vtable::Vtable};
