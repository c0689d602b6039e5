//! The functions of C, POSIX and glibc that allocate aligned memory.

use std::{ffi::c_void, ptr};

use libc::{EINVAL, ENOMEM, c_int};
use raw_mem::{align_up, preserving_errno};

use crate::{
    c::or_null,
    heap::{self, MIN_ALIGN},
};

/// Returns the size of a page in bytes.
fn page() -> usize {
    // SAFETY: sysconf reads a constant of the system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

#[cold]
fn invalid() -> *mut c_void {
    // SAFETY: the C library's `errno` exists as long as its thread runs.
    unsafe { *libc::__errno_location() = EINVAL };
    ptr::null_mut()
}

/// Allocates `size` bytes aligned to `align`, which is rounded up to a power of two.
pub(crate) fn aligned(align: usize, size: usize) -> *mut c_void {
    match align.max(MIN_ALIGN).checked_next_power_of_two() {
        Some(align) => or_null(heap::alloc(size, align)),
        None => invalid(),
    }
}

/// Allocates `size` bytes that begin at the start of a page.
pub(crate) fn at_page(size: usize) -> *mut c_void {
    or_null(heap::alloc(size, page()))
}

/// Allocates enough whole pages for `size` bytes, at least one.
pub(crate) fn whole_pages(size: usize) -> *mut c_void {
    let page = page();
    or_null(align_up(size.max(1), page).map_or_else(heap::refuse, |size| heap::alloc(size, page)))
}

/// Allocates `size` bytes aligned to `align`, and stores their address in `*out`.
///
/// `align` must be a power of two and a multiple of the size of a pointer. If it is not, this
/// function returns `EINVAL`. If there is no memory, it returns `ENOMEM`. After either error,
/// `*out` and `errno` are unchanged.
///
/// # Safety
///
/// - `out` must be valid for writing a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || align < size_of::<*mut c_void>() {
        return EINVAL;
    }
    match preserving_errno(|| heap::alloc(size, align)) {
        Some(block) => {
            // SAFETY: `out` is valid for writing a pointer (contract of `posix_memalign`).
            unsafe { out.write(block.as_ptr().cast()) };
            0
        }
        None => ENOMEM,
    }
}

/// Allocates `size` bytes aligned to `align`. The size need not be a multiple of the alignment.
///
/// Returns null with `EINVAL` if `align` is not a power of two, and with `ENOMEM` if there is no
/// memory.
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        return invalid();
    }
    or_null(heap::alloc(size, align))
}

/// Allocates `size` bytes aligned to `align`, which is rounded up to a power of two.
///
/// Returns null with `EINVAL` if no power of two is large enough, and with `ENOMEM` if there is no
/// memory.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    aligned(align, size)
}

/// Allocates `size` bytes that begin at the start of a page.
#[unsafe(no_mangle)]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    at_page(size)
}

/// Allocates enough whole pages for `size` bytes, at least one.
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    whole_pages(size)
}
