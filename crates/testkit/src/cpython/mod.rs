//! Starts a real CPython whose allocator `pymalloc` is used only by the test.
//!
//! The test must be the only user of `pymalloc`. Before the interpreter starts, we therefore make
//! the interpreter allocate with `malloc`. The test calls the functions of `pymalloc` directly
//! (see [`Interpreter::pymalloc`]). Since CPython 3.12, these functions need a thread state, which
//! exists only after the interpreter has started.
//!
//! A process can start only one interpreter, so [`in_each`] starts one process for each libpython.

mod arena_hook;
mod each;
mod headers;
mod interpreter;
mod vtable;

pub use self::{each::in_each, interpreter::Interpreter, vtable::Vtable};
