//! The operations, models and drivers that the tests of all layers share.
//!
//! ```text
//!   workload ──► Op ──► Driver ─┬─► Shadowed: any MemAlloc, checked by the shadow
//!                               │     (pymalloc itself too, in a real libpython)
//!                               └─► Reference: CPython's layer 2 without memory
//! ```
//!
//! A test compares two subjects, such as a heap and a model of the heap, by playing the same
//! operations into both:
//!
//! ```
//! use testkit::{drive::Driver, failing::Faults, op::Op, reference::{Reference, Rules}};
//!
//! let mut driver = Driver::new(Reference::new(Rules::POOLS_16K, Faults::default()));
//! let spot = driver.step(Op::Malloc { slot: 0, size: 40 }).block().flatten();
//! assert_eq!(spot.map(|spot| (spot.arena, spot.pool, spot.offset)), Some((0, 0, 48)));
//! ```
//!
//! - [`op`]: the operations. Property tests generate them, other tests replay them, and a fuzzer
//!   mutates them.
//! - [`workload`]: generates random sequences of operations, and phases that fill and drain arenas.
//! - [`drive`] and [`shadow`]: play operations into an allocator, and check that live blocks do not
//!   overlap, keep their contents and are aligned.
//! - [`reference`](mod@reference): a model that predicts the state of every pool, block and arena
//!   after a sequence of operations.
//! - [`place`]: describes blocks by arena, pool and offset instead of addresses, so that heaps at
//!   different addresses can be compared.
//! - [`cpython`]: starts a real CPython, against whose `pymalloc` the model is tested.
//! - [`pythons`]: finds the CPythons on this machine.
//! - [`property`]: chooses which inputs a property test tries, and how many.
//! - [`failing`]: provides arena sources and allocators that fail on demand.

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
