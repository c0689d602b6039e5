//! Operations, models and drivers that the tests of all crates share.
//!
//! ```text
//!   workload ──► Op ──► Driver ─┬─► Shadowed: any MemAlloc, checked by the shadow
//!                               │     (pymalloc itself too, in a real libpython)
//!                               └─► Reference: CPython's layer 2 without memory
//! ```
//!
//! A test applies operations to an allocator or a model of one, and compares the outcomes:
//!
//! ```
//! use testkit::{drive::Driver, failing::Faults, op::Op, reference::{Reference, Rules}};
//!
//! let mut driver = Driver::new(Reference::new(Rules::POOLS_16K, Faults::default()));
//! let spot = driver.step(Op::Malloc { slot: 0, size: 40 }).block().flatten();
//! assert_eq!(spot.map(|spot| (spot.arena, spot.pool, spot.offset)), Some((0, 0, 48)));
//! ```

pub mod cpython;
pub mod drive;
pub mod failing;
pub mod op;
pub mod place;
pub mod property;
#[forbid(unsafe_code)]
pub mod pythons;
#[forbid(unsafe_code)]
pub mod random;
#[forbid(unsafe_code)]
pub mod reference;
pub mod shadow;
#[forbid(unsafe_code)]
pub mod workload;
