//! Text for stderr or a file, written without allocating memory.
//!
//! Allocators use this module to describe an error before they end the process.

use core::{
    fmt::{self, Write},
    marker::PhantomData,
};

use self::system::STDERR;
use crate::without_cancellation;

/// A buffered writer that never allocates, for a file descriptor that is open for the lifetime
/// `'fd`.
///
/// Dropping the value writes the rest of the buffer.
///
/// ```
/// use std::fmt::Write;
/// use raw_mem::Output;
///
/// let mut stderr = Output::stderr();
/// writeln!(stderr, "{} blocks are in use", 3)?;
/// # Ok::<(), std::fmt::Error>(())
/// ```
#[derive(Debug)]
pub struct Output<'fd> {
    descriptor: i32,
    is_open: PhantomData<&'fd ()>,
    buffer: [u8; 512],
    len: usize,
    is_complete: bool,
    /// True if we must not call `write` for a file that has reached the process's limit on the size
    /// of files.
    respects_limit: bool,
}

impl Output<'_> {
    /// Creates a writer for stderr that makes no system call except `write`.
    ///
    /// This writer does not check the process's limit on the size of files, because the check needs
    /// other system calls. A writer from `new` makes this check.
    #[must_use]
    pub const fn stderr() -> Self {
        Self::of(STDERR, false)
    }

    /// Creates a writer for a file descriptor, which stays open when the writer is dropped.
    ///
    /// If the file has reached the process's limit on the size of files (`RLIMIT_FSIZE`), the
    /// writer fails without calling `write`. The call would cause the signal `SIGXFSZ`, which ends
    /// the process by default.
    ///
    /// # Safety
    ///
    /// - The caller must own or borrow the file descriptor for the lifetime of the result. A
    ///   negative number is also allowed. It is never a descriptor, so each write fails.
    ///
    /// ```
    /// # use raw_mem::Output;
    /// // SAFETY: no file has this descriptor.
    /// unsafe { Output::new(-1) };
    /// ```
    ///
    /// ```compile_fail,E0133
    /// # use raw_mem::Output;
    /// Output::new(-1);
    /// ```
    #[cfg(all(unix, not(miri)))]
    #[must_use]
    pub const unsafe fn new(descriptor: i32) -> Self {
        Self::of(descriptor, true)
    }

    const fn of(descriptor: i32, respects_limit: bool) -> Self {
        let (is_open, buffer) = (PhantomData, [0; 512]);
        Self { descriptor, is_open, buffer, len: 0, is_complete: true, respects_limit }
    }

    /// Writes the contents of the buffer. If this fails, for example because stderr is
    /// closed, [`finish`](Self::finish) will return false.
    pub fn flush(&mut self) {
        let (descriptor, bytes) = (self.descriptor, &self.buffer[..self.len]);
        self.is_complete &=
            without_cancellation(|| system::write(descriptor, bytes, self.respects_limit));
        self.len = 0;
    }

    /// Appends bytes to the text.
    pub fn write_bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.len == self.buffer.len() {
                self.flush();
            }
            self.buffer[self.len] = *byte;
            self.len += 1;
        }
    }

    /// Writes the contents of the buffer. Returns true if all text has been written.
    pub fn finish(mut self) -> bool {
        self.flush();
        self.is_complete
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Write for Output<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write_bytes(text.as_bytes());
        Ok(())
    }
}

/// Writes `obmalloc: ` and `line` to stderr, and ends the process with `abort`.
///
/// The function allocates nothing, unless the arguments of `line` do.
#[cold]
#[inline(never)]
pub fn abort_with(line: fmt::Arguments<'_>) -> ! {
    let mut stderr = Output::stderr();
    let _ = writeln!(stderr, "obmalloc: {line}");
    stderr.finish();
    std::process::abort()
}

/// Returns true if the `len` bytes at `start` can be read. This is slow, because it asks the
/// system.
///
/// If a heap is corrupted, its pointers may lead to memory that cannot be read. Code that reports
/// the corruption should call this function before it reads through such a pointer. Without this
/// test, the read could crash the process before the report is complete.
///
/// On some systems, or if the process has no free file descriptor, this function cannot test the
/// memory. It then returns true, although a read may still crash.
#[must_use]
pub fn is_readable(start: *const u8, len: usize) -> bool {
    test_readable(start, len) != Some(false)
}

/// Does what [`is_readable`] does, but returns `None` if the memory cannot be tested.
#[must_use]
pub fn test_readable(start: *const u8, len: usize) -> Option<bool> {
    without_cancellation(|| system::test_readable(start, len))
}

#[cfg(all(unix, not(miri)))]
mod system {
    use core::mem::MaybeUninit;

    use crate::errno::{get as errno, set as set_errno};

    /// The smallest page size of any system, in bytes.
    const PAGE: usize = 4096;

    pub(super) const STDERR: i32 = libc::STDERR_FILENO;

    /// Returns true if all bytes have been written.
    ///
    /// If `respects_limit` is true, a file that has reached the size limit is not written.
    pub(super) fn write(descriptor: i32, mut left: &[u8], respects_limit: bool) -> bool {
        while !left.is_empty() {
            if respects_limit && is_at_limit(descriptor) {
                set_errno(libc::EFBIG);
                return false;
            }
            // SAFETY: `left` is initialised memory of that length.
            let written = unsafe { libc::write(descriptor, left.as_ptr().cast(), left.len()) };
            match usize::try_from(written) {
                Ok(written) => left = left.get(written..).unwrap_or_default(),
                Err(_) if errno() == libc::EINTR => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Returns true if the next `write` would begin at or beyond the process's limit on the size of
    /// files.
    ///
    /// If a `write` begins before the limit, the system writes only the bytes up to the limit, and
    /// sends no signal.
    fn is_at_limit(descriptor: i32) -> bool {
        let mut limit = MaybeUninit::<libc::rlimit>::uninit();
        // SAFETY: `limit` has room for the result.
        if unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, limit.as_mut_ptr()) } != 0 {
            return false;
        }
        // SAFETY: the call succeeded, so it has written the limit.
        let limit = unsafe { limit.assume_init() }.rlim_cur;
        if limit == libc::RLIM_INFINITY {
            return false;
        }
        let mut status = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: `status` has room for the result.
        if unsafe { libc::fstat(descriptor, status.as_mut_ptr()) } != 0 {
            return false;
        }
        // SAFETY: the call succeeded, so it has written the status.
        let status = unsafe { status.assume_init() };
        // SAFETY: the calls access no memory.
        let (flags, offset) = unsafe {
            (libc::fcntl(descriptor, libc::F_GETFL), libc::lseek(descriptor, 0, libc::SEEK_CUR))
        };
        let is_regular = status.st_mode & libc::S_IFMT == libc::S_IFREG;
        let begin = if flags & libc::O_APPEND == 0 { offset } else { status.st_size };
        is_regular && i128::from(begin) >= i128::from(limit)
    }

    /// Writes one byte of each page to a pipe. The system call fails with `EFAULT` if this byte
    /// cannot be read.
    pub(super) fn test_readable(start: *const u8, len: usize) -> Option<bool> {
        let Some(end) = start.addr().checked_add(len) else { return Some(false) };
        let mut pipe = [0; 2];
        if new_pipe(&mut pipe) != 0 {
            return None;
        }
        let mut result = Some(true);
        let mut at = start;
        while result == Some(true) && at.addr() < end {
            // SAFETY: the system checks the address, and reports an error if it cannot be read.
            let written = unsafe { libc::write(pipe[1], at.cast(), 1) };
            let mut taken = 0_u8;
            result = if written != 1 {
                (errno() == libc::EFAULT).then_some(false)
            } else {
                // SAFETY: `taken` has room for the byte that was written to the pipe.
                let read = unsafe { libc::read(pipe[0], (&raw mut taken).cast(), 1) };
                (read == 1).then_some(true)
            };
            at = at.map_addr(|address| (address | (PAGE - 1)).saturating_add(1));
        }
        for descriptor in pipe {
            // SAFETY: the descriptor was opened above, and is used nowhere else.
            unsafe { libc::close(descriptor) };
        }
        result
    }

    /// Opens a pipe that a program started by another thread does not inherit.
    #[cfg(target_os = "linux")]
    fn new_pipe(pipe: &mut [i32; 2]) -> i32 {
        // SAFETY: the array has room for both descriptors.
        unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) }
    }

    /// Opens a pipe. Not every system can open one that other programs do not inherit.
    #[cfg(not(target_os = "linux"))]
    fn new_pipe(pipe: &mut [i32; 2]) -> i32 {
        // SAFETY: the array has room for both descriptors.
        unsafe { libc::pipe(pipe.as_mut_ptr()) }
    }
}

/// On other systems, the standard library writes to stderr.
#[cfg(not(all(unix, not(miri))))]
mod system {
    use std::io::{self, Write};

    pub(super) const STDERR: i32 = 2;

    pub(super) fn write(_descriptor: i32, bytes: &[u8], _respects_limit: bool) -> bool {
        io::stderr().write_all(bytes).is_ok()
    }

    pub(super) fn test_readable(_start: *const u8, _len: usize) -> Option<bool> {
        None
    }
}

#[cfg(all(test, unix, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn memory_is_readable_up_to_the_end_of_its_mapping() {
        const PAGE: usize = 4096;
        let mapping = memmap2::MmapOptions::new().len(3 * PAGE).map_anon().unwrap();
        let start = mapping.as_ptr();
        // SAFETY: the page lies in the mapping, and nothing uses it.
        let last = unsafe { start.add(2 * PAGE) };
        // SAFETY: as above. The mapping stays reserved until it is dropped.
        assert_eq!(unsafe { libc::mprotect(last.cast_mut().cast(), PAGE, libc::PROT_NONE) }, 0);
        assert!(is_readable(start, 2 * PAGE) && is_readable(start, 0));
        assert!(!is_readable(start, 2 * PAGE + 1) && !is_readable(last, 1));
        drop(mapping);
        // Other threads of the tests might map memory at any address except these two.
        assert!(!is_readable(core::ptr::without_provenance(8), 8));
        assert!(!is_readable(core::ptr::without_provenance(usize::MAX - 3), 8));
    }

    #[test]
    fn text_that_is_longer_than_the_buffer_is_written_in_order() {
        let mut pipe = [0; 2];
        // SAFETY: the array has room for both descriptors.
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
        // SAFETY: the descriptor was opened above, and stays open until the end of the test.
        let mut out = unsafe { Output::new(pipe[1]) };
        out.write_str(&"x".repeat(511)).unwrap();
        assert_eq!(out.len, 511);
        out.write_str("yz").unwrap();
        assert_eq!((out.len, out.buffer[0]), (1, b'z'));
        assert!(out.finish());
        let mut text = [0_u8; 600];
        // SAFETY: the buffer has that many bytes.
        let read = unsafe { libc::read(pipe[0], text.as_mut_ptr().cast(), text.len()) };
        assert_eq!((read, &text[510..513]), (513, b"xyz".as_slice()));
        for descriptor in pipe {
            // SAFETY: the descriptor was opened above, and is used nowhere else.
            unsafe { libc::close(descriptor) };
        }
    }

    #[test]
    fn text_that_cannot_be_written_is_noticed() {
        // SAFETY: no file has this descriptor.
        let mut out = unsafe { Output::new(-1) };
        out.write_str("x").unwrap();
        assert!(!out.finish());
    }
}
