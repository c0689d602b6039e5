//! Text for a file descriptor, without allocating memory.

use std::{fmt, process};

use libc::c_int;

/// A buffered writer for a file descriptor. Errors of the system are kept until `finish`.
#[derive(Debug)]
pub struct Output {
    fd: c_int,
    buffer: [u8; 512],
    len: usize,
    is_complete: bool,
}

impl Output {
    /// The standard error output.
    pub const STDERR: Self = Self::new(libc::STDERR_FILENO);

    /// Creates a writer for the file descriptor `fd`, which stays open.
    pub const fn new(fd: c_int) -> Self {
        Self { fd, buffer: [0; 512], len: 0, is_complete: true }
    }

    /// Writes what is buffered. Returns true if everything has been written.
    pub fn finish(mut self) -> bool {
        self.flush();
        self.is_complete
    }

    fn flush(&mut self) {
        let mut left = &self.buffer[..self.len];
        while !left.is_empty() {
            // SAFETY: `left` is initialised memory of that length.
            let written = unsafe { libc::write(self.fd, left.as_ptr().cast(), left.len()) };
            match usize::try_from(written) {
                Ok(written) => left = left.get(written..).unwrap_or_default(),
                Err(_) if errno() == libc::EINTR => {}
                Err(_) => {
                    self.is_complete = false;
                    break;
                }
            }
        }
        self.len = 0;
    }
}

impl fmt::Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.len == self.buffer.len() {
                self.flush();
            }
            self.buffer[self.len] = byte;
            self.len += 1;
        }
        Ok(())
    }
}

/// Returns the error number of the last system call that failed in this thread.
pub fn errno() -> c_int {
    // SAFETY: the C library's `errno` exists as long as its thread runs.
    unsafe { *libc::__errno_location() }
}

/// Writes one line to stderr and ignores errors, such as a closed stderr.
pub fn say(line: fmt::Arguments<'_>) {
    let mut stderr = Output::STDERR;
    let _ = fmt::Write::write_fmt(&mut stderr, format_args!("obmalloc: {line}\n"));
    stderr.finish();
}

/// Writes one line to stderr and ends the process.
#[cold]
pub fn abort(line: fmt::Arguments<'_>) -> ! {
    say(line);
    process::abort()
}
