//! Starts a real CPython whose allocator `pymalloc` is used only by the test.
//!
//! Before the interpreter starts, we replace `pymalloc` by `malloc`, so that the interpreter itself
//! does not use `pymalloc`. We always start the interpreter, because `pymalloc` needs a thread
//! state since CPython 3.12. A process can start only one interpreter, so [`in_each`] starts one
//! process for each libpython.

mod arena_hook;
mod each;
mod headers;
mod interpreter;
mod vtable;

pub use self::{each::in_each, interpreter::Interpreter, vtable::Vtable};
