//! Checks in debug builds that memory to be freed or resized came from this allocator.
//!
//! The check catches, for example, `CString::from_raw` on the result of C's `strdup`.

use std::{alloc::Layout, fmt, ptr::NonNull};

use raw_mem::abort_with;
use thread_heap::ThreadMalloc;

use crate::classes::{Place, place};

/// Ends the process if `ptr` cannot be memory that the global allocator returned for `layout`.
///
/// # Safety
///
/// - If `ptr` lies in memory of the process's heaps, it must point to a block in use.
pub(crate) unsafe fn check(action: &str, ptr: NonNull<u8>, layout: Layout) {
    if place(layout) == Place::Nowhere {
        return;
    }
    // SAFETY: a pointer into the heaps' memory is a block in use (contract of `check`).
    match unsafe { ThreadMalloc.usable_size_if_ours(ptr) } {
        Some(size) if size >= layout.size() => {}
        Some(size) => abort(action, ptr, layout, format_args!("it is a block of {size} bytes")),
        None => abort(action, ptr, layout, format_args!("it did not come from this allocator")),
    }
}

#[cold]
fn abort(action: &str, ptr: NonNull<u8>, layout: Layout, why: fmt::Arguments<'_>) -> ! {
    let (size, align) = (layout.size(), layout.align());
    abort_with(format_args!(
        "cannot {action} the memory at {ptr:p} with size {size} and alignment {align}: {why}"
    ))
}
