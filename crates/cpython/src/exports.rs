//! Functions that Python code can call through `ctypes`.

use std::{ffi::c_char, ptr};

use crate::START;

/// Writes the statistics of this process to `buffer` as JSON, and returns their length in bytes.
///
/// If the JSON text is longer than `size` bytes, the function writes nothing to `buffer`, but still
/// returns the length of the text.
///
/// The statistics exist only if a CPython was already loaded when the dynamic loader initialised
/// this library. Otherwise, the function returns 0.
///
/// The figures of the heap are null unless the calling thread holds the GIL of the main
/// interpreter.
///
/// # Safety
///
/// - `buffer` must be valid for writes of `size` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn obmalloc_stats_json(buffer: *mut c_char, size: usize) -> usize {
    let Some(start) = START.get() else { return 0 };
    let json = start.json();
    if json.len() <= size {
        // SAFETY: `buffer` has room for the text (contract) and cannot overlap our own string.
        unsafe { ptr::copy_nonoverlapping(json.as_ptr(), buffer.cast(), json.len()) };
    }
    json.len()
}
