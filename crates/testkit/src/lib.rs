//! Operations, an oracle, a reference and drivers for the tests of every layer.
//!
//! ```text
//!   workload ──► Op ──┬──► drive ──► any MemAlloc, judged by the shadow
//!                     ├──► reference: CPython's layer 2 without memory
//!                     └──► cpython: pymalloc itself, in a real libpython
//! ```
//!
//! - [`op`]: one enum of operations, for property tests, replay and fuzzing.
//! - [`workload`]: random sequences, and phases that fill and drain arenas.
//! - [`shadow`] and [`drive`]: no two live blocks overlap, contents survive, alignment holds.
//! - [`reference`](mod@reference): what every pool, block and arena must be after a sequence.
//! - [`place`]: addresses as arena, pool and offset, so that heaps can be compared.
//! - [`cpython`]: the allocator that all this is measured by.
//! - [`pythons`]: every CPython of this machine.
//! - [`property`]: how many inputs are tried, and which.
//! - [`failing`]: sources and allocators that fail on demand.

pub mod cpython;
pub mod drive;
pub mod failing;
pub mod op;
pub mod place;
pub mod property;
#[forbid(unsafe_code)]
pub mod pythons;
#[forbid(unsafe_code)]
pub mod reference;
pub mod shadow;
#[forbid(unsafe_code)]
pub mod workload;
