//! Operations, models and drivers for the tests of every layer.
//!
//! ```text
//!   workload ──► Op ──► Driver ─┬─► Shadowed: any MemAlloc, checked by the shadow
//!                               │     (pymalloc itself too, in a real libpython)
//!                               └─► Reference: CPython's layer 2 without memory
//! ```
//!
//! A test compares two subjects by playing the same operations into both:
//!
//! ```
//! use testkit::{drive::Driver, failing::Faults, op::Op, reference::{Reference, Rules}};
//!
//! let mut driver = Driver::new(Reference::new(Rules::POOLS_16K, Faults::default()));
//! let spot = driver.step(Op::Malloc { slot: 0, size: 40 }).block().flatten();
//! assert_eq!(spot.map(|spot| (spot.arena, spot.pool, spot.offset)), Some((0, 0, 48)));
//! ```
//!
//! - [`op`]: the operations, for property tests, replay and fuzzing.
//! - [`workload`]: random sequences, and phases that fill and drain arenas.
//! - [`drive`] and [`shadow`]: live blocks must not overlap, keep their contents and be aligned.
//! - [`reference`](mod@reference): the state of every pool, block and arena after a sequence.
//! - [`place`]: addresses as arena, pool and offset, so that heaps can be compared.
//! - [`cpython`]: `pymalloc`, against which all of this is tested.
//! - [`pythons`]: the CPythons of this machine.
//! - [`property`]: the number and choice of inputs.
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
