//! Lines on stderr, and the error number of the system.

use std::fmt::{self, Write};

use libc::c_int;
use raw_mem::Output;

/// Returns the error number of the last system call that failed in this thread.
pub fn errno() -> c_int {
    // SAFETY: the C library's `errno` exists as long as its thread runs.
    unsafe { *libc::__errno_location() }
}

/// Writes one line to stderr, preceded by `obmalloc: `.
///
/// Errors are ignored. For example, stderr may be closed, or may be a file that has reached the
/// file size limit of the process.
pub fn say(line: fmt::Arguments<'_>) {
    // SAFETY: any code may borrow the descriptor of stderr at any time, because nothing owns it.
    let mut stderr = unsafe { Output::new(libc::STDERR_FILENO) };
    let _ = writeln!(stderr, "obmalloc: {line}");
}
