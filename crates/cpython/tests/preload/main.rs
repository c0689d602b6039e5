//! Tests of the library in every CPython that `testkit::pythons` finds.
//!
//! `OBMALLOC_LIB` names the library to test. Without it, the tests build the library.

mod debug;
mod exit;
mod fake;
mod footprint;
mod fork;
mod free_threaded;
mod interpreters;
mod late;
mod limits;
mod loader_lock;
mod memory;
mod moments;
mod newer;
mod output;
mod refusals;
mod reinit;
mod stats;
mod status;
mod status_cost;
mod support;
mod threads;
mod trimming;
mod untouched;
