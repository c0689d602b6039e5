//! Blocks on pages of their own.
//!
//! ```text
//!   page          page          page
//!   ├─────────┬───────────────────┬─ ─ ─ ┤
//!   │ mapping │ block             │      │
//!   ├─────────┴───────────────────┴─ ─ ─ ┤
//! ```
//!
//! For an allocator's own records: few, long-lived, some of them large and never filled, as the
//! nodes of a map of the address space are. A page that nobody writes to takes no memory, and no
//! other allocator is entered.

use core::{cmp, ptr::NonNull};

use memmap2::{MmapOptions, MmapRaw};

use crate::{MAX_REQUEST, MemAlloc, calloc_size, preserving_errno};

/// Bytes before a block: its mapping. A multiple of every block's alignment.
const HEAD: usize = size_of::<MmapRaw>().next_multiple_of(16);

/// An allocator that maps pages for each block: a system call, and a page at least.
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

/// The bytes that the block at `start` has room for.
///
/// # Safety
///
/// `start` is a live block of [`PageBlocks`].
unsafe fn room(start: NonNull<u8>) -> usize {
    // SAFETY: the block's mapping stands before it.
    let mapping = unsafe { start.sub(HEAD).cast::<MmapRaw>().as_ref() };
    mapping.len() - HEAD
}

// SAFETY: each block lies in a mapping of its own, behind a head that is a multiple of the
// alignment, and is as long as was asked for.
unsafe impl MemAlloc for PageBlocks {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        if size > MAX_REQUEST - HEAD {
            return None;
        }
        let mapping = MmapRaw::from(MmapOptions::new().len(HEAD + size).map_anon().ok()?);
        let start = NonNull::new(mapping.as_mut_ptr())?;
        // SAFETY: the mapping is ours, aligned to pages, and longer than its head.
        unsafe { start.cast::<MmapRaw>().write(mapping) };
        // SAFETY: as above.
        Some(unsafe { start.add(HEAD) })
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        // New pages are zero.
        self.malloc(calloc_size(count, size)?)
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        let new = self.malloc(size)?;
        if let Some(old) = ptr {
            // SAFETY: the caller gives a live block.
            let bytes = cmp::min(unsafe { room(old) }, size);
            // SAFETY: both blocks are live, so they are apart, and have that many bytes.
            unsafe { new.copy_from_nonoverlapping(old, bytes) };
            // SAFETY: the caller's promise; the block is replaced.
            unsafe { self.free(Some(old)) };
        }
        Some(new)
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        let Some(start) = ptr else { return };
        // SAFETY: the block's mapping stands before it, and is read out once.
        let mapping = unsafe { start.sub(HEAD).cast::<MmapRaw>().read() };
        preserving_errno(|| drop(mapping));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_aligned_zero_and_as_long_as_asked() {
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
    fn a_block_has_room_for_what_was_asked_and_no_more() {
        for size in [0, 16, 5000] {
            let block = PageBlocks.malloc(size).unwrap();
            // SAFETY: the block is live, and freed once.
            unsafe {
                assert_eq!(room(block), size);
                PageBlocks.free(Some(block));
            }
        }
    }

    #[test]
    fn a_block_keeps_its_contents_when_it_grows_and_shrinks() {
        let mut block = PageBlocks.malloc(16);
        for size in [16, 5000, 100_000, 16] {
            // SAFETY: the block is live, and replaced by what comes back.
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

    /// Mutant 11 of the mutation sample.
    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn a_block_that_is_replaced_is_unmapped() {
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
            pages * 4096
        };
        let before = resident();
        for _ in 0..300 {
            let block = PageBlocks.malloc(1 << 20).unwrap();
            // SAFETY: the block has that many bytes, is live, and is replaced by what comes back.
            let block = unsafe {
                block.write_bytes(1, 1 << 20);
                PageBlocks.realloc(Some(block), 2 << 20)
            };
            // SAFETY: the block is live, and not used again.
            unsafe { PageBlocks.free(block) };
        }
        assert!(resident() < before + (100 << 20), "{before} bytes, then {}", resident());
    }

    #[test]
    fn what_cannot_be_mapped_is_refused_and_the_block_stays() {
        let block = PageBlocks.calloc(16, 1);
        for size in [MAX_REQUEST, MAX_REQUEST - HEAD, usize::MAX] {
            assert_eq!(PageBlocks.malloc(size), None);
            // SAFETY: the block is live, and stays as the request fails.
            assert_eq!(unsafe { PageBlocks.realloc(block, size) }, None);
        }
        assert_eq!(PageBlocks.calloc(MAX_REQUEST, 2), None);
        // SAFETY: the block is live, and not used again.
        unsafe { PageBlocks.free(block) };
    }
}
