//! Debug builds check that memory which is freed or resized came from this allocator.
//!
//! The check catches, for example, `CString::from_raw` on the result of C's `strdup`.

use std::{
    alloc::Layout,
    fmt,
    io::{Cursor, Write},
    process,
    ptr::NonNull,
};

use obmalloc::Blocks;
use thread_heap::PerThread;

use crate::classes::class;

/// Ends the process if `ptr` cannot be memory that the global allocator returned for `layout`.
///
/// Large memory only has to lie outside of all arenas, because the C library allocates it.
///
/// # Safety
///
/// - If `ptr` lies in an arena of the process's heaps, it must point to a block in use.
pub(crate) unsafe fn check(action: &str, ptr: NonNull<u8>, layout: Layout) {
    // SAFETY: a pointer into an arena is a block in use (contract of `check`).
    let block_size = unsafe { PerThread.size_if_ours(ptr) };
    match (class(layout), block_size) {
        (Some(_), Some(size)) if size >= layout.size() => {}
        (None, None) => {}
        (_, None) => {
            abort(action, ptr, layout, format_args!("it did not come from this allocator"))
        }
        (_, Some(size)) => {
            abort(action, ptr, layout, format_args!("it is a block of {size} bytes"))
        }
    }
}

/// Writes one line to stderr and ends the process, without allocating memory.
#[cold]
fn abort(action: &str, ptr: NonNull<u8>, layout: Layout, why: fmt::Arguments<'_>) -> ! {
    let (size, align) = (layout.size(), layout.align());
    let mut line = Cursor::new([0_u8; 256]);
    // Every message fits into the buffer, and a longer one would only be cut off.
    let _ = writeln!(
        line,
        "obmalloc: cannot {action} the memory at {ptr:p} with size {size} and alignment {align}: \
         {why}"
    );
    let len = line.position() as usize;
    // SAFETY: the line has at least `len` bytes.
    unsafe { libc::write(libc::STDERR_FILENO, line.get_ref().as_ptr().cast(), len) };
    process::abort()
}
