//! Starts a real CPython whose allocator `pymalloc` is used only by the test.
//!
//! The test must be the only user of `pymalloc`. Before the interpreter starts, we therefore make
//! it allocate from `malloc` instead, and give the functions of `pymalloc` to the test. Since
//! CPython 3.12, these functions need a thread state, so the test must not call them until the
//! interpreter has started. A process can start only one interpreter, so [`in_each`] starts one
//! process for each libpython.

mod arena_hook;
mod each;
mod headers;
mod interpreter;
mod vtable;

pub use self::{each::in_each, interpreter::Interpreter, vtable::Vtable};
