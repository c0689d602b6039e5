//! The C library's `malloc` as a [`MemAlloc`].

use core::ptr::NonNull;

use crate::{MAX_REQUEST, MemAlloc, calloc_size};

/// The C library's allocator.
///
/// A request of 0 bytes allocates 1 byte. Blocks are aligned to 16 bytes on 64-bit platforms.
///
/// CPython: `_PyMem_RawMalloc` and related functions (`Objects/obmalloc.c`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Malloc;

// SAFETY: the C standard guarantees what the contract of `MemAlloc` requires.
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
        // SAFETY: `old` is null or a live block (contract of `realloc`), and the size is not 0.
        NonNull::new(unsafe { libc::realloc(old.cast(), size.max(1)) }.cast())
    }

    #[inline]
    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        let old = ptr.map_or(core::ptr::null_mut(), NonNull::as_ptr);
        // SAFETY: `old` is null or a live block of the C library (contract of `free`).
        unsafe { libc::free(old.cast()) }
    }

    unsafe fn usable_size(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: the block is live (contract).
        unsafe { system_size(ptr) }
    }
}

/// Returns the usable size of the block at `ptr`, as reported by the C library.
///
/// # Safety
///
/// `ptr` must be a live block of the C library.
#[cfg(all(target_os = "linux", not(miri)))]
unsafe fn system_size(ptr: NonNull<u8>) -> Option<usize> {
    // SAFETY: the block is live (contract).
    Some(unsafe { libc::malloc_usable_size(ptr.as_ptr().cast()) })
}

/// Returns `None`, because not every C library knows the size of a block.
///
/// # Safety
///
/// `ptr` must be a live block of the C library.
#[cfg(not(all(target_os = "linux", not(miri))))]
unsafe fn system_size(_ptr: NonNull<u8>) -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_zero_bytes_return_distinct_blocks() {
        let one = Malloc.malloc(0).unwrap();
        let other = Malloc.calloc(0, 8).unwrap();
        assert_ne!(one, other);
        // SAFETY: `one` is live, and is replaced by the result.
        let one = unsafe { Malloc.realloc(Some(one), 0) }.unwrap();
        // SAFETY: both blocks are live and not used again.
        unsafe {
            Malloc.free(Some(one));
            Malloc.free(Some(other));
        }
    }

    #[test]
    fn a_refused_request_leaves_the_block_unchanged() {
        assert_eq!(Malloc.malloc(MAX_REQUEST + 1), None);
        assert_eq!(Malloc.calloc(MAX_REQUEST, 2), None);
        let block = Malloc.calloc(1, 4).unwrap();
        // SAFETY: `block` is live, and stays live because the request fails.
        assert_eq!(unsafe { Malloc.realloc(Some(block), MAX_REQUEST + 1) }, None);
        // SAFETY: `block` is live and has four zeroed bytes.
        assert_eq!(unsafe { block.cast::<[u8; 4]>().read() }, [0; 4]);
        // SAFETY: `block` is live and not used again.
        unsafe { Malloc.free(Some(block)) }
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn a_block_is_hardly_larger_than_requested() {
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

    /// The test never touches its blocks, so they take up no memory.
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
    fn reallocating_null_allocates_and_freeing_null_does_nothing() {
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
