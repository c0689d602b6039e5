//! Starts a real CPython whose allocator `pymalloc` is used only by the test.
//!
//! Before the interpreter starts, we make it allocate from `malloc` instead of `pymalloc`, and give
//! the functions of `pymalloc` to the test. The interpreter must have started before the test calls
//! these functions, because they need a thread state since CPython 3.12. A process can start only
//! one interpreter, so [`in_each`] starts one process for each libpython.

mod arena_hook;
mod each;
mod headers;
mod interpreter;
mod vtable;

pub use self::{each::in_each, interpreter::Interpreter, vtable::Vtable};
