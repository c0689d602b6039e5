//! What is compared: the process's global allocator, our heap by itself, CPython's, and the fewest
//! instructions that any could do with.

mod cpython;
mod floor;
mod global;
mod heap;

pub use cpython::{CPython, LIBPYTHON, NotLoaded};
pub use floor::Floor;
pub use global::Global;
pub use heap::{CPythonRulesHeap, OwnHeap, ThreadRulesHeap};

use std::{alloc::Layout, ptr};

use crate::contender::Contender;

/// Moves memory for `layout` into a new block of `size` bytes.
///
/// # Safety
///
/// As [`Contender::realloc`].
#[inline]
unsafe fn moved<C: Contender>(
    contender: &mut C,
    memory: *mut u8,
    layout: Layout,
    size: usize,
) -> *mut u8 {
    let new = contender.alloc(crate::contender::layout(size));
    if !new.is_null() {
        // SAFETY: both are blocks in use, and each has room for the smaller of both sizes.
        unsafe { ptr::copy_nonoverlapping(memory, new, size.min(layout.size())) };
        // SAFETY: the caller's promise.
        unsafe { contender.free(memory, layout) };
    }
    new
}
