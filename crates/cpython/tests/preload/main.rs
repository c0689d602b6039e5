//! Tests of the library in real CPythons, loaded with `LD_PRELOAD`.
//!
//! `OBMALLOC_LIB` names the library to test. If it is not set, the library is built. The Pythons
//! are those that `testkit::pythons` finds. A test runs on every Python that it applies to.

mod exit;
mod fork;
mod interpreters;
mod late;
mod limits;
mod memory;
mod output;
mod refusals;
mod reinit;
mod stats;
mod support;
mod threads;
mod untouched;
