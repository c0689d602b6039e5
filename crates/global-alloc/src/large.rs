//! Memory from the C library, for requests that are too large for the pools.

use std::{alloc::Layout, ptr::NonNull};

#[cfg(target_vendor = "apple")]
use libc::malloc_size as c_usable_size;
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
use libc::malloc_usable_size as c_usable_size;
use raw_mem::{Malloc, MemAlloc};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Init {
    Uninit,
    Zeroed,
}

/// Calls `request`, and calls it again after `trim` if it fails.
///
/// The C library can use memory that the pools retain only after `trim` has unmapped it.
#[inline]
pub(crate) fn after_trim<T>(request: impl Fn() -> Option<T>, trim: impl FnOnce()) -> Option<T> {
    request().or_else(
        #[cold]
        || {
            trim();
            request()
        },
    )
}

/// The alignment of every block of malloc, which suits the largest fundamental type of C.
const MALLOC_ALIGN: usize = 2 * size_of::<usize>();

/// Returns true if malloc aligns every block sufficiently for `layout`.
#[inline]
fn is_plain(layout: Layout) -> bool {
    layout.align() <= MALLOC_ALIGN
}

/// Allocates memory for `layout`. The caller alone owns the memory until the caller frees it.
#[inline]
pub(crate) fn alloc(layout: Layout, init: Init) -> Option<NonNull<u8>> {
    match (is_plain(layout), init) {
        (true, Init::Uninit) => Malloc.malloc(layout.size()),
        (true, Init::Zeroed) => Malloc.calloc(1, layout.size()),
        (false, _) => alloc_aligned(layout, init),
    }
}

/// Resizes memory to `size` bytes, and may move it. On `None`, the memory is unchanged.
///
/// # Safety
///
/// - `ptr` must point to live memory that [`alloc`] or [`resize`] returned for `layout`.
/// - `size` and `layout.align()` must form a valid layout.
pub(crate) unsafe fn resize(ptr: NonNull<u8>, layout: Layout, size: usize) -> Option<NonNull<u8>> {
    if is_plain(layout) {
        // SAFETY: memory for a plain layout came from malloc, and is live (contract of `resize`).
        return unsafe { Malloc.realloc(Some(ptr), size) };
    }
    // SAFETY: `size` and the alignment are a valid layout (contract of `resize`).
    let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
    let block = alloc_aligned(new, Init::Uninit)?;
    // SAFETY: both blocks are live, have that many bytes and do not overlap.
    unsafe { block.copy_from_nonoverlapping(ptr, layout.size().min(size)) };
    // SAFETY: the old block is live. The caller uses only the new block from now on (contract).
    unsafe { free(ptr) };
    Some(block)
}

/// Frees the memory at `ptr`, whatever its layout is.
///
/// # Safety
///
/// - `ptr` must be live memory that [`alloc`] or [`resize`] returned.
/// - The memory must not be used again.
#[inline]
pub(crate) unsafe fn free(ptr: NonNull<u8>) {
    // SAFETY: the C library's `free` accepts blocks of `malloc` and `posix_memalign`.
    unsafe { Malloc.free(Some(ptr)) };
}

/// Returns the number of bytes that the program may use at `ptr`.
///
/// # Safety
///
/// - `ptr` must be live memory that [`alloc`] or [`resize`] returned.
#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_vendor = "apple"
))]
pub(crate) unsafe fn usable_size(ptr: NonNull<u8>) -> usize {
    // SAFETY: the block came from the C library and is live (contract of `usable_size`).
    unsafe { c_usable_size(ptr.as_ptr().cast()) }
}

fn alloc_aligned(layout: Layout, init: Init) -> Option<NonNull<u8>> {
    let mut block = std::ptr::null_mut();
    // SAFETY: every alignment above `MALLOC_ALIGN` is a power of two and a multiple of the size of
    // a pointer, as `posix_memalign` requires.
    let code = unsafe { libc::posix_memalign(&mut block, layout.align(), layout.size().max(1)) };
    let block = NonNull::new(block.cast::<u8>()).filter(|_| code == 0)?;
    if init == Init::Zeroed {
        // SAFETY: the block is new and has that many bytes.
        unsafe { block.write_bytes(0, layout.size()) };
    }
    Some(block)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn an_aligned_block_keeps_contents_and_alignment_when_it_is_resized() {
        let layout = Layout::from_size_align(1000, 4096).unwrap();
        let block = alloc(layout, Init::Zeroed).unwrap();
        // SAFETY: the block is live, and its 1000 bytes are initialised.
        unsafe {
            assert!(std::slice::from_raw_parts(block.as_ptr(), 1000).iter().all(|byte| *byte == 0));
            block.write_bytes(7, 1000);
        }
        // SAFETY: the block is live and not used again.
        let block = unsafe { resize(block, layout, 100_000) }.unwrap();
        assert_eq!(block.addr().get() % 4096, 0);
        // SAFETY: the block is live, its first 1000 bytes are initialised, and it is freed once.
        unsafe {
            assert!(std::slice::from_raw_parts(block.as_ptr(), 1000).iter().all(|byte| *byte == 7));
            free(block);
        }
    }

    #[test]
    fn only_alignments_above_mallocs_own_need_an_aligned_block() {
        let is_plain = |align| is_plain(Layout::from_size_align(1000, align).unwrap());
        assert_eq!([1, MALLOC_ALIGN, 2 * MALLOC_ALIGN].map(is_plain), [true, true, false]);
        assert_eq!(MALLOC_ALIGN, 2 * align_of::<usize>());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_block_is_hardly_larger_than_the_request() {
        for align in [1, 64] {
            let layout = Layout::from_size_align(100_000, align).unwrap();
            for block in [alloc(layout, Init::Uninit), alloc(layout, Init::Zeroed)] {
                let block = block.unwrap();
                // SAFETY: the block is live, and freed once.
                unsafe {
                    assert!((100_000..110_000).contains(&usable_size(block)));
                    free(block);
                }
            }
        }
    }

    #[test]
    fn a_refused_request_is_repeated_once_after_a_trim() {
        let trims = Cell::new(0);
        let trim = || trims.set(trims.get() + 1);
        assert_eq!(after_trim(|| Some(7), trim), Some(7));
        assert_eq!(trims.get(), 0);
        assert_eq!(after_trim(|| (trims.get() > 0).then_some(7), trim), Some(7));
        assert_eq!(after_trim(|| None::<u8>, trim), None);
        assert_eq!(trims.get(), 2);
    }

    #[test]
    fn an_impossible_size_is_refused() {
        let layout = Layout::from_size_align(isize::MAX as usize - 4095, 4096).unwrap();
        assert_eq!((alloc(layout, Init::Uninit), alloc(layout, Init::Zeroed)), (None, None));
    }
}
