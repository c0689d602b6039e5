//! An allocator that cuts blocks from a buffer and never reuses them.

use core::{cell::Cell, marker::PhantomData, mem::MaybeUninit, ptr::NonNull};

use crate::{MemAlloc, align_up, calloc_size};

/// The alignment of a block, and the size of the gap before it that stores its size, in bytes.
const ALIGNMENT: usize = 16;

/// An allocator that cuts blocks from the front of a buffer and never reuses them.
///
/// `Bump` suits the metadata of a heap, because little of it is ever freed.
///
/// ```
/// use core::mem::MaybeUninit;
/// use raw_mem::{Bump, MemAlloc};
///
/// let mut buffer = [MaybeUninit::uninit(); 256];
/// let bump = Bump::new(&mut buffer);
/// assert!(bump.malloc(100).is_some());
/// assert!(bump.malloc(200).is_none());
/// ```
#[derive(Debug)]
pub struct Bump<'a> {
    /// # Invariant
    ///
    /// The `left` bytes that begin at `next` are the rest of the buffer, and belong to no block.
    next: Cell<NonNull<u8>>,
    left: Cell<usize>,
    buffer: PhantomData<&'a mut [MaybeUninit<u8>]>,
}

// SAFETY: the allocator borrows the buffer exclusively, and neither is tied to a thread.
unsafe impl Send for Bump<'_> {}

impl<'a> Bump<'a> {
    /// Creates an allocator that cuts its blocks from `buffer`.
    #[must_use]
    pub const fn new(buffer: &'a mut [MaybeUninit<u8>]) -> Self {
        let left = Cell::new(buffer.len());
        // INVARIANT: no block has been cut yet, so the whole buffer is unused.
        let next = Cell::new(NonNull::from_mut(buffer).cast());
        Self { next, left, buffer: PhantomData }
    }

    /// Cuts an aligned block from the buffer and stores `bytes` before it.
    fn cut(&self, bytes: usize) -> Option<NonNull<u8>> {
        let next = self.next.get();
        let address = next.addr().get();
        let start = align_up(address, ALIGNMENT)?.checked_add(ALIGNMENT)?;
        let used = (start - address).checked_add(bytes)?;
        let left = self.left.get().checked_sub(used)?;
        // SAFETY: at least `used` bytes are left, so the start of the block lies in the buffer.
        let block = unsafe { next.add(start - address) };
        // SAFETY: at least `used` bytes are left, so the end of the block lies in the buffer.
        let end = unsafe { next.add(used) };
        // SAFETY: the 16 bytes before the aligned block were skipped and have room for the size.
        unsafe { block.cast::<usize>().sub(1).write(bytes) };
        // INVARIANT: the first `used` bytes are no longer part of the unused end.
        self.next.set(end);
        self.left.set(left);
        Some(block)
    }
}

// SAFETY: blocks are aligned and do not overlap, because `cut` takes them from the buffer one after
// the other. They stay valid as long as the buffer is borrowed.
unsafe impl MemAlloc for Bump<'_> {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        self.cut(size.max(1))
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        let bytes = calloc_size(count, size)?;
        let block = self.malloc(bytes)?;
        // SAFETY: the new block has at least `bytes` bytes.
        unsafe { block.write_bytes(0, bytes) };
        Some(block)
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        let new = self.malloc(size)?;
        if let Some(old) = ptr {
            // SAFETY: `cut` stored the size before `old` (contract of `realloc`).
            let bytes = unsafe { old.cast::<usize>().sub(1).read() }.min(size);
            // SAFETY: the blocks do not overlap, and each has at least `bytes` bytes.
            unsafe { new.copy_from_nonoverlapping(old, bytes) };
        }
        Some(new)
    }

    /// Does nothing.
    unsafe fn free(&self, _ptr: Option<NonNull<u8>>) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MAX_REQUEST;

    #[test]
    fn blocks_are_aligned_apart_and_inside_of_the_buffer() {
        let mut buffer = [MaybeUninit::uninit(); 1000];
        let range = buffer.as_ptr_range();
        let bump = Bump::new(&mut buffer);
        let mut end = range.start.addr();
        let mut blocks = 0;
        while let Some(block) = bump.malloc(40) {
            let start = block.addr().get();
            assert!(start % 16 == 0 && start >= end && start + 40 <= range.end.addr());
            // SAFETY: the block has 40 bytes.
            unsafe { block.write_bytes(0xff, 40) };
            (end, blocks) = (start + 40, blocks + 1);
        }
        assert!((14..=15).contains(&blocks), "{blocks} blocks");
    }

    #[test]
    fn a_block_that_grows_keeps_its_contents() {
        let mut buffer = [MaybeUninit::uninit(); 512];
        let bump = Bump::new(&mut buffer);
        let block = bump.calloc(2, 8).unwrap();
        // SAFETY: the block has 16 bytes, and is replaced by what `realloc` returns.
        let block = unsafe {
            block.cast::<[u64; 2]>().write([3, 4]);
            bump.realloc(Some(block), 200).unwrap()
        };
        // SAFETY: the first 16 bytes were copied.
        assert_eq!(unsafe { block.cast::<[u64; 2]>().read() }, [3, 4]);
        // SAFETY: the block is live, and stays live because the request fails.
        assert_eq!(unsafe { bump.realloc(Some(block), 400) }, None);
    }

    #[test]
    fn a_request_that_does_not_fit_is_refused_and_leaves_the_rest() {
        let mut buffer = [MaybeUninit::uninit(); 128];
        let bump = Bump::new(&mut buffer);
        for size in [128, 1 << 40, MAX_REQUEST, usize::MAX] {
            assert_eq!(bump.malloc(size), None);
        }
        assert_eq!(bump.calloc(usize::MAX, 2), None);
        assert!(bump.malloc(64).is_some());
    }
}
