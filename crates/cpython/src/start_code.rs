//! The code that a process runs only at its start, or not at all.

use std::ffi::c_void;

// `layout.ld` defines these symbols, except `__ehdr_start`, which the linker defines.
unsafe extern "C" {
    #[link_name = "obmalloc_unused_start"]
    static START: u8;
    #[link_name = "obmalloc_unused_end"]
    static END: u8;
    #[link_name = "__ehdr_start"]
    static CONSTANTS_START: u8;
    #[link_name = "obmalloc_constants_end"]
    static CONSTANTS_END: u8;
}

/// Removes the start-up code and the library's constants from the memory of the process.
///
/// When the process first uses a page of the library's file, the kernel maps up to 16 pages around
/// it, including pages that the process does not need. `release` removes such pages from memory
/// once the library has started. If the process later uses a removed page, the kernel maps the page
/// again from the library's file.
///
/// This function is inlined into its caller, which must not be part of the removed code.
#[inline(always)]
pub(crate) fn release() {
    release_pages(&raw const START, &raw const END);
    release_pages(&raw const CONSTANTS_START, &raw const CONSTANTS_END);
}

/// Removes the pages from `start` to `end`, which must be in a read-only part of the library's
/// file.
#[inline(always)]
fn release_pages(start: *const u8, end: *const u8) {
    const PAGE: usize = 4096;
    // The first page may also contain code that is still used.
    let first = start.map_addr(|address| address.next_multiple_of(PAGE));
    let bytes = (end.addr() - first.addr()).next_multiple_of(PAGE);
    // SAFETY: nothing writes to these pages, so the file still has their contents.
    unsafe { libc::madvise(first.cast_mut().cast::<c_void>(), bytes, libc::MADV_DONTNEED) };
}
