//! Starts a real CPython whose allocator `pymalloc` is used only by the test.
//!
//! The test must be the only user of `pymalloc`. Before the interpreter starts, we therefore
//! replace `pymalloc` with `malloc` as the interpreter's own allocator. The test calls `pymalloc`
//! directly, through pointers to its functions ([`Interpreter::pymalloc`]), but not before the
//! interpreter has started: since CPython 3.12, these functions need a thread state. A process can
//! start only one interpreter, so [`in_each`] starts one process for each libpython.

mod arena_hook;
mod each;
mod headers;
mod interpreter;
mod vtable;

pub use self::{each::in_each, interpreter::Interpreter, vtable::Vtable};
