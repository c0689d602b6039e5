//! Tests of the library in every CPython that `testkit::pythons` finds.
//!
//! `OBMALLOC_LIB` names the library to test. Without it, the tests build the library.

mod exit;
mod fork;
mod interpreters;
mod late;
mod limits;
mod memory;
mod moments;
mod output;
mod refusals;
mod reinit;
mod stats;
mod support;
mod threads;
mod untouched;
