//! The line on stderr about a soft limit.

use std::{
    io::{Cursor, Write},
    process,
};

use crate::Usage;

/// Writes one line to stderr, without allocating memory. Errors, such as a closed stderr, are
/// ignored.
pub fn warn_of_soft_limit(usage: &Usage) {
    let (pid, used, limit) = (process::id(), usage.bytes(), usage.limits().soft);
    let mut line = Cursor::new([0_u8; 160]);
    // Every message fits into the buffer, and a longer one would only be cut off.
    let _ = writeln!(
        line,
        "obmalloc: process {pid} uses {used} bytes, which exceeds the soft limit of {limit} bytes"
    );
    let len = line.position() as usize;
    write(&line.get_ref()[..len]);
}

#[cfg(unix)]
fn write(line: &[u8]) {
    crate::preserving_errno(|| {
        // SAFETY: the line is initialised memory of this length.
        unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) }
    });
}

#[cfg(not(unix))]
fn write(line: &[u8]) {
    let _ = std::io::stderr().write_all(line);
}
