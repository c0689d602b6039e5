//! The library in real CPythons, as `LD_PRELOAD` puts it there: one module for each promise.
//!
//! `OBMALLOC_LIB` names the library to test; without it, it is built. The Pythons are those of
//! `testkit::pythons`; a test runs on every one that its promise is about.

mod exit;
mod fork;
mod interpreters;
mod late;
mod limits;
mod lives;
mod memory;
mod output;
mod refusals;
mod stats;
mod support;
mod threads;
mod untouched;
