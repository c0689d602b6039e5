//! The C library's `malloc`, as the lowest [`MemAlloc`].

use core::ptr::NonNull;

use crate::{MAX_REQUEST, MemAlloc, calloc_size};

/// The C library's allocator, with CPython's rules for the edges: a request of 0 bytes is one of
/// 1 byte, and one above [`MAX_REQUEST`] is refused before the library sees it.
///
/// Blocks are aligned to 16 bytes on 64-bit platforms. CPython: `_PyMem_RawMalloc` and its
/// siblings (`Objects/obmalloc.c`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Malloc;

// SAFETY: the C standard makes the same promises for malloc, calloc, realloc and free.
unsafe impl MemAlloc for Malloc {
    #[inline]
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        if size > MAX_REQUEST {
            return None;
        }
        // SAFETY: malloc may be called with any size.
        NonNull::new(unsafe { libc::malloc(size.max(1)) }.cast())
    }

    #[inline]
    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        let bytes = calloc_size(count, size)?;
        // SAFETY: calloc may be called with any count and size.
        NonNull::new(unsafe { libc::calloc(1, bytes.max(1)) }.cast())
    }

    #[inline]
    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        if size > MAX_REQUEST {
            return None;
        }
        let old = ptr.map_or(core::ptr::null_mut(), NonNull::as_ptr);
        // SAFETY: the caller gives null or a live block, which came from malloc, calloc or
        // realloc; the size is not 0, so nothing is freed but by moving.
        NonNull::new(unsafe { libc::realloc(old.cast(), size.max(1)) }.cast())
    }

    #[inline]
    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        let old = ptr.map_or(core::ptr::null_mut(), NonNull::as_ptr);
        // SAFETY: the caller gives null or a live block, which came from this library.
        unsafe { libc::free(old.cast()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_bytes_are_a_block_of_their_own() {
        let one = Malloc.malloc(0).unwrap();
        let other = Malloc.calloc(0, 8).unwrap();
        assert_ne!(one, other);
        // SAFETY: `one` is live; it is replaced by what comes back.
        let one = unsafe { Malloc.realloc(Some(one), 0) }.unwrap();
        // SAFETY: both blocks are live and not used again.
        unsafe {
            Malloc.free(Some(one));
            Malloc.free(Some(other));
        }
    }

    #[test]
    fn requests_above_the_limit_are_refused_and_leave_the_block() {
        assert_eq!(Malloc.malloc(MAX_REQUEST + 1), None);
        assert_eq!(Malloc.calloc(MAX_REQUEST, 2), None);
        let block = Malloc.calloc(1, 4).unwrap();
        // SAFETY: `block` is live, and stays so because the request fails.
        assert_eq!(unsafe { Malloc.realloc(Some(block), MAX_REQUEST + 1) }, None);
        // SAFETY: `block` is live and has four zeroed bytes.
        assert_eq!(unsafe { block.cast::<[u8; 4]>().read() }, [0; 4]);
        // SAFETY: `block` is live and not used again.
        unsafe { Malloc.free(Some(block)) }
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn a_block_is_hardly_larger_than_asked() {
        // SAFETY: `None` is allowed.
        let moved = unsafe { Malloc.realloc(None, 100_000) };
        for block in [Malloc.malloc(100_000), Malloc.calloc(10, 10_000), moved] {
            // SAFETY: the block is live.
            let size = unsafe { libc::malloc_usable_size(block.unwrap().as_ptr().cast()) };
            assert!((100_000..110_000).contains(&size));
            // SAFETY: the block is live and not used again.
            unsafe { Malloc.free(block) };
        }
    }

    /// The blocks are never touched, so they only cost addresses.
    #[test]
    #[cfg(all(target_os = "linux", target_pointer_width = "64", not(miri)))]
    fn a_freed_block_goes_back_to_the_c_library() {
        const BLOCK: usize = 1 << 30;
        let addresses = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').next().unwrap().parse::<usize>().unwrap() * 4096
        };
        let before = addresses();
        for _ in 0..100 {
            let block = Malloc.malloc(BLOCK);
            assert!(block.is_some());
            // SAFETY: the block is live and not used again.
            unsafe { Malloc.free(block) };
        }
        assert!(addresses() < before + 50 * BLOCK);
    }

    #[test]
    fn null_is_reallocated_by_allocating_and_freed_by_doing_nothing() {
        // SAFETY: `None` is allowed.
        let block = unsafe { Malloc.realloc(None, 8) };
        assert!(block.is_some());
        // SAFETY: `None` and a live block are allowed.
        unsafe {
            Malloc.free(None);
            Malloc.free(block);
        }
    }
}
