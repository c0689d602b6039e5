//! Checks in debug builds that memory which is freed or resized came from this allocator.
//!
//! Rust code can hand memory of another allocator to this one, for example with
//! `CString::from_raw` on what C's `strdup` returned. A release build trusts the layout and never
//! looks. A debug build ends the process with one line on stderr.

use std::{
    alloc::Layout,
    fmt::{self, Write},
    process,
    ptr::NonNull,
};

use obmalloc::Blocks;
use thread_heap::PerThread;

use crate::layout::class;

/// Ends the process if `ptr` cannot be memory that the global allocator returned for `layout`.
/// `what` says what the program does with it.
///
/// Memory that is too large for the pools belongs to the C library, which may notice on its own
/// that a pointer is not its own.
///
/// # Safety
///
/// If `ptr` lies in an arena of the process's heaps, it is a block in use.
pub(crate) unsafe fn check(what: &str, ptr: NonNull<u8>, layout: Layout) {
    // SAFETY: the caller's promise.
    let block_size = unsafe { PerThread.size_if_ours(ptr) };
    match (class(layout), block_size) {
        (Some(_), Some(size)) if size >= layout.size() => {}
        (None, None) => {}
        (_, None) => end(what, ptr, layout, format_args!("it did not come from this allocator")),
        (_, Some(size)) => end(what, ptr, layout, format_args!("it is a block of {size} bytes")),
    }
}

#[cold]
fn end(what: &str, ptr: NonNull<u8>, layout: Layout, why: fmt::Arguments<'_>) -> ! {
    let (size, align) = (layout.size(), layout.align());
    let mut line = Line { bytes: [0; 256], len: 0 };
    // The line has room for every message, and a shorter message would be no reason to go on.
    let _ = writeln!(
        line,
        "obmalloc: cannot {what} the memory at {ptr:p} with size {size} and alignment {align}: \
         {why}"
    );
    // SAFETY: the bytes are the line's.
    unsafe { libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.len) };
    process::abort()
}

/// A line of text that needs no allocation.
struct Line {
    bytes: [u8; 256],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}
