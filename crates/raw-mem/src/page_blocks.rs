//! An allocator that gives each block its own pages.

use core::{cmp, ptr::NonNull};

use memmap2::{MmapOptions, MmapRaw};

use crate::{MAX_REQUEST, MemAlloc, calloc_size, preserving_errno};

/// The size in bytes of the head, which precedes the block and stores the handle of its mapping.
const HEAD: usize = size_of::<MmapRaw>().next_multiple_of(16);

/// An allocator that maps new pages for each block, with one system call.
///
/// `PageBlocks` calls no other allocator. Pages of a block that are never touched use no memory.
///
/// ```
/// use raw_mem::{MemAlloc, PageBlocks};
///
/// let block = PageBlocks.calloc(1 << 20, 1).unwrap();
/// // SAFETY: the block has that many bytes, all zero, and is not used after it is freed.
/// unsafe {
///     assert_eq!(block.add(1 << 19).read(), 0);
///     PageBlocks.free(Some(block));
/// }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct PageBlocks;

/// Returns the size of the block at `start` in bytes.
///
/// # Safety
///
/// `start` must be a live block of [`PageBlocks`].
unsafe fn room(start: NonNull<u8>) -> usize {
    // SAFETY: `malloc` wrote the `MmapRaw` before the block, which is live (contract of `room`).
    let mapping = unsafe { start.sub(HEAD).cast::<MmapRaw>().as_ref() };
    mapping.len() - HEAD
}

// SAFETY: each block has its own mapping of sufficient length. The size of the head keeps the block
// aligned to 16 bytes.
unsafe impl MemAlloc for PageBlocks {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        if size > MAX_REQUEST - HEAD {
            return None;
        }
        let mapping = MmapRaw::from(MmapOptions::new().len(HEAD + size).map_anon().ok()?);
        let start = NonNull::new(mapping.as_mut_ptr())?;
        // SAFETY: the mapping is new, aligned to a page, and at least as long as the head.
        unsafe { start.cast::<MmapRaw>().write(mapping) };
        // SAFETY: the mapping is at least as long as the head.
        Some(unsafe { start.add(HEAD) })
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        // New pages are already zero.
        self.malloc(calloc_size(count, size)?)
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        let new = self.malloc(size)?;
        if let Some(old) = ptr {
            // SAFETY: `old` is a live block (contract of `realloc`).
            let bytes = cmp::min(unsafe { room(old) }, size);
            // SAFETY: the blocks do not overlap, and each has at least `bytes` bytes.
            unsafe { new.copy_from_nonoverlapping(old, bytes) };
            // SAFETY: `old` is a live block and is not used again.
            unsafe { self.free(Some(old)) };
        }
        Some(new)
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        let Some(start) = ptr else { return };
        // SAFETY: `malloc` wrote the `MmapRaw`, which only this single free takes out.
        let mapping = unsafe { start.sub(HEAD).cast::<MmapRaw>().read() };
        preserving_errno(|| drop(mapping));
    }

    unsafe fn usable_size(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: the block is live (contract).
        Some(unsafe { room(ptr) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_aligned_zeroed_and_as_long_as_requested() {
        for size in [0, 1, 4096 - HEAD, 4096, 100_000] {
            let block = PageBlocks.calloc(size, 1).unwrap();
            assert_eq!(block.addr().get() % 16, 0);
            // SAFETY: the block has that many bytes, and is freed once.
            unsafe {
                assert!((0..size).all(|at| block.add(at).read() == 0));
                block.write_bytes(1, size);
                PageBlocks.free(Some(block));
            }
        }
    }

    #[test]
    fn a_block_has_exactly_the_requested_size() {
        for size in [0, 16, 5000] {
            let block = PageBlocks.malloc(size).unwrap();
            // SAFETY: the block is live, and freed once.
            unsafe {
                assert_eq!((room(block), PageBlocks.usable_size(block)), (size, Some(size)));
                PageBlocks.free(Some(block));
            }
        }
    }

    #[test]
    fn a_block_keeps_its_contents_when_it_grows_and_shrinks() {
        let mut block = PageBlocks.malloc(16);
        for size in [16, 5000, 100_000, 16] {
            // SAFETY: the block is live, and is replaced by the result.
            block = unsafe { PageBlocks.realloc(block, size) };
            let start = block.unwrap().cast::<[u8; 16]>();
            if size == 16 {
                // SAFETY: the block has 16 bytes.
                unsafe { start.write([7; 16]) };
            }
            // SAFETY: as above, and they were written.
            assert_eq!(unsafe { start.read() }, [7; 16]);
        }
        // SAFETY: the block is live, and not used again.
        unsafe { PageBlocks.free(block) };
    }

    /// Regression test (mutant 11).
    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn a_replaced_block_is_unmapped() {
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
            pages * 4096
        };
        // A leak of 1,000 MiB exceeds whatever other tests map at the same time.
        let before = resident();
        for _ in 0..1000 {
            let block = PageBlocks.malloc(1 << 20).unwrap();
            // SAFETY: the block has that many bytes, is live, and is replaced by the result.
            let block = unsafe {
                block.write_bytes(1, 1 << 20);
                PageBlocks.realloc(Some(block), 2 << 20)
            };
            // SAFETY: the block is live, and not used again.
            unsafe { PageBlocks.free(block) };
        }
        assert!(resident() < before + (500 << 20), "{before} bytes, then {}", resident());
    }

    #[test]
    fn a_refused_request_leaves_the_block_unchanged() {
        let block = PageBlocks.calloc(16, 1);
        for size in [MAX_REQUEST, MAX_REQUEST - HEAD, usize::MAX] {
            assert_eq!(PageBlocks.malloc(size), None);
            // SAFETY: the block is live, and stays live because the request fails.
            assert_eq!(unsafe { PageBlocks.realloc(block, size) }, None);
        }
        assert_eq!(PageBlocks.calloc(MAX_REQUEST, 2), None);
        // SAFETY: the block is live, and not used again.
        unsafe { PageBlocks.free(block) };
    }
}
