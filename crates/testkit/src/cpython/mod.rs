//! Starts a real CPython whose allocator `pymalloc` is used only by the test.
//!
//! A test must be the only user of `pymalloc`. Before the interpreter starts, we therefore replace
//! CPython's allocators, so that the interpreter itself allocates with `malloc`, and we give the
//! functions of `pymalloc` to the test. Since CPython 3.12, these functions need a thread state, so
//! the test must not call them until the interpreter has started. A process can start only one
//! interpreter, so [`in_each`] starts one process for each libpython.

mod arena_hook;
mod each;
mod headers;
mod interpreter;
mod vtable;

pub use self::{each::in_each, interpreter::Interpreter, vtable::Vtable};
