//! The simplest allocator.

use core::{cell::Cell, ptr::NonNull};

use crate::program::MemAlloc;

/// Hands out a buffer from front to end, and reuses nothing.
pub(crate) struct Bump<'a> {
    buffer: &'a [Cell<u128>],
    used: Cell<usize>,
}

impl<'a> Bump<'a> {
    pub(crate) fn new(buffer: &'a mut [u128]) -> Self {
        Self { buffer: Cell::from_mut(buffer).as_slice_of_cells(), used: Cell::new(0) }
    }
}

// SAFETY: each block is a part of the buffer that was not handed out before, and is aligned to 16
// bytes. The allocator borrows the buffer.
unsafe impl MemAlloc for Bump<'_> {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        let cells = size.div_ceil(16).max(1);
        let block = self.buffer.get(self.used.get()..)?.get(..cells)?;
        self.used.set(self.used.get() + cells);
        Some(NonNull::from(block).cast())
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        let bytes = count.checked_mul(size)?;
        let block = self.malloc(bytes)?;
        // SAFETY: the block has `bytes` bytes.
        unsafe { block.write_bytes(0, bytes) };
        Some(block)
    }

    unsafe fn realloc(&self, block: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        // The size of a block is not known, so none can grow.
        if block.is_none() { self.malloc(size) } else { None }
    }

    unsafe fn free(&self, _: Option<NonNull<u8>>) {}
}
