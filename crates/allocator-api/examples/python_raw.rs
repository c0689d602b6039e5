//! A Rust library for CPython whose global allocator is CPython's domain raw.
//!
//! The test `python_raw` loads it into every installed CPython.

#![cfg(not(test))] // A program of tests would have to link CPython.

use std::{ffi::c_void, sync::Mutex};

use allocator_api::{CFunctions, Global};

unsafe extern "C" {
    fn PyMem_RawMalloc(size: usize) -> *mut c_void;
    fn PyMem_RawCalloc(count: usize, size: usize) -> *mut c_void;
    fn PyMem_RawRealloc(ptr: *mut c_void, size: usize) -> *mut c_void;
    fn PyMem_RawFree(ptr: *mut c_void);
}

// SAFETY: any thread may call the functions of the domain raw, at any time.
#[global_allocator]
static GLOBAL: Global<CFunctions> = Global::new(unsafe {
    CFunctions::new(PyMem_RawMalloc, PyMem_RawCalloc, PyMem_RawRealloc, PyMem_RawFree)
});

#[derive(Clone)]
#[repr(align(64))]
struct Line([u8; 64]);

static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());

/// Allocates `count` lines of 64 bytes. Returns 1 if all of them are aligned and intact.
#[unsafe(no_mangle)]
pub extern "C" fn hold(count: usize) -> i32 {
    let Ok(mut lines) = LINES.lock() else { return 0 };
    lines.resize(count, Line([7; 64]));
    lines.shrink_to_fit();
    let is_intact = |line: &Line| (&raw const *line).addr().is_multiple_of(64) && line.0 == [7; 64];
    i32::from(lines.iter().all(is_intact))
}
