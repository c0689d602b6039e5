//! Starts a real CPython whose allocator `pymalloc` is used only by the test.
//!
//! The test must be the only user of `pymalloc`. We therefore make the interpreter allocate with
//! `malloc` before it starts. The test calls the functions of `pymalloc` directly
//! (see [`Interpreter::pymalloc`]). It can do so only after the interpreter has started, because
//! these functions need a thread state since CPython 3.12.
//!
//! A process can start only one interpreter, so [`in_each`] starts one process for each libpython.

mod arena_hook;
mod each;
mod headers;
mod interpreter;
mod vtable;

pub use self::{each::in_each, interpreter::Interpreter, vtable::Vtable};
