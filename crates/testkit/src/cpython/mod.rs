//! Starts a real CPython in this process in such a way that only the test uses its allocator
//! `pymalloc`.
//!
//! ```text
//!                       mem, obj ──────────► malloc          the interpreter's own objects
//!   tests ──► Vtable (saved) ─► pymalloc ─┬► arena hook      only ours, and empty at the start
//!                                         └► raw: malloc
//! ```
//!
//! Before the interpreter starts, we save the functions of `pymalloc`, and then replace `pymalloc`
//! by `malloc` for the interpreter's own requests. From then on, only the test calls `pymalloc`. We
//! always start the interpreter, because `pymalloc` needs a thread state from CPython 3.12 on. A
//! process can start only one interpreter, so [`in_each`] creates a process for each libpython.

mod arena_hook;
mod each;
mod headers;
mod interpreter;
mod vtable;

pub use self::{each::in_each, interpreter::Interpreter, vtable::Vtable};
