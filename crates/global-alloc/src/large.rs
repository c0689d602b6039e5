//! What is too large for pools: the C library's, of any alignment.

use std::{alloc::Layout, ptr::NonNull};

use raw_mem::{Malloc, MemAlloc};

/// Repeats a request that the C library has refused, after `trim` has given back the memory that
/// pools retain. The request may have failed because that memory was not the C library's to use.
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

/// The alignment of every block of the C library: that of its largest plain type.
const MALLOC_ALIGN: usize = 2 * size_of::<usize>();

/// Malloc aligns enough for `layout`.
#[inline]
fn is_plain(layout: Layout) -> bool {
    layout.align() <= MALLOC_ALIGN
}

/// A block for `layout`, uninitialised.
#[inline]
pub(crate) fn alloc(layout: Layout) -> Option<NonNull<u8>> {
    if is_plain(layout) { Malloc.malloc(layout.size()) } else { alloc_aligned(layout) }
}

/// A block for `layout`, all zero.
#[inline]
pub(crate) fn alloc_zeroed(layout: Layout) -> Option<NonNull<u8>> {
    if is_plain(layout) {
        return Malloc.calloc(1, layout.size());
    }
    let block = alloc_aligned(layout)?;
    // SAFETY: the block has that many bytes, and is ours alone.
    unsafe { block.write_bytes(0, layout.size()) };
    Some(block)
}

/// Makes the block hold `size` bytes, moving it if it must. On `None` it stands untouched.
///
/// # Safety
///
/// `ptr` is a live block that came from here for `layout`; `size`, rounded up to the layout's
/// alignment, is at most `isize::MAX`.
pub(crate) unsafe fn resize(ptr: NonNull<u8>, layout: Layout, size: usize) -> Option<NonNull<u8>> {
    if is_plain(layout) {
        // SAFETY: a block for a plain layout is malloc's.
        return unsafe { Malloc.realloc(Some(ptr), size) };
    }
    // SAFETY: the alignment is a layout's, and the caller promises the rest.
    let new = alloc_aligned(unsafe { Layout::from_size_align_unchecked(size, layout.align()) })?;
    // SAFETY: both blocks are live, so they do not overlap, and have that many bytes.
    unsafe { new.copy_from_nonoverlapping(ptr, layout.size().min(size)) };
    // SAFETY: the caller gives the block up, now that there is another.
    unsafe { free(ptr) };
    Some(new)
}

/// Frees a block.
///
/// # Safety
///
/// `ptr` is a live block that came from here, and is not used again.
#[inline]
pub(crate) unsafe fn free(ptr: NonNull<u8>) {
    // SAFETY: aligned or not, it is the C library's.
    unsafe { Malloc.free(Some(ptr)) };
}

/// Returns how many bytes of a block the program may use.
///
/// # Safety
///
/// `ptr` must be a live block that came from here.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub(crate) unsafe fn usable_size(ptr: NonNull<u8>) -> usize {
    // SAFETY: the block is the C library's, and live.
    unsafe { libc::malloc_usable_size(ptr.as_ptr().cast()) }
}

/// Returns how many bytes of a block the program may use.
///
/// # Safety
///
/// `ptr` must be a live block that came from here.
#[cfg(target_vendor = "apple")]
pub(crate) unsafe fn usable_size(ptr: NonNull<u8>) -> usize {
    // SAFETY: the block is the C library's, and live.
    unsafe { libc::malloc_size(ptr.as_ptr().cast_const().cast()) }
}

fn alloc_aligned(layout: Layout) -> Option<NonNull<u8>> {
    let mut block = std::ptr::null_mut();
    // SAFETY: a layout's alignment is a power of two, and it is above that of a word here.
    let code = unsafe { libc::posix_memalign(&mut block, layout.align(), layout.size().max(1)) };
    NonNull::new(block.cast()).filter(|_| code == 0)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn an_aligned_block_keeps_contents_and_alignment_when_it_is_resized() {
        let layout = Layout::from_size_align(1000, 4096).unwrap();
        let block = alloc_zeroed(layout).unwrap();
        // SAFETY: the block is live; its 1000 bytes are initialised.
        unsafe {
            assert!(std::slice::from_raw_parts(block.as_ptr(), 1000).iter().all(|byte| *byte == 0));
            block.write_bytes(7, 1000);
        }
        // SAFETY: the block is live, and replaced by what comes back.
        let block = unsafe { resize(block, layout, 100_000) }.unwrap();
        assert_eq!(block.addr().get() % 4096, 0);
        // SAFETY: the block is live; its first 1000 bytes came along; it is freed once.
        unsafe {
            assert!(std::slice::from_raw_parts(block.as_ptr(), 1000).iter().all(|byte| *byte == 7));
            free(block);
        }
    }

    #[test]
    fn only_alignments_beyond_mallocs_own_need_an_aligned_block() {
        let is_plain = |align| is_plain(Layout::from_size_align(1000, align).unwrap());
        assert_eq!([1, MALLOC_ALIGN, 2 * MALLOC_ALIGN].map(is_plain), [true, true, false]);
        assert_eq!(MALLOC_ALIGN, 2 * align_of::<usize>());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_block_is_hardly_larger_than_asked() {
        for align in [1, 64] {
            let layout = Layout::from_size_align(100_000, align).unwrap();
            for block in [alloc(layout), alloc_zeroed(layout)] {
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
    fn more_than_there_can_be_is_refused() {
        let layout = Layout::from_size_align(isize::MAX as usize - 4095, 4096).unwrap();
        assert_eq!((alloc(layout), alloc_zeroed(layout)), (None, None));
    }
}
