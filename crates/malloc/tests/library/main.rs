//! Tests of the built library: its functions called directly, and programs that run with it.
//!
//! `OBMALLOC_MALLOC_LIB` names the library to test. Without it, the tests build the library.

mod aligned;
mod api;
mod basics;
mod cpp;
mod debug;
mod exports;
mod linked;
mod memory;
mod moments;
mod programs;
mod resize;
mod stats;
mod support;
