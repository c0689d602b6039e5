//! A minimal allocator ("the least"), which keeps a stack of free blocks for each size class.

use std::{
    alloc::{self, Layout},
    ptr,
};

use crate::contender::{Contender, moved};

const STEP: usize = 16;

const CLASSES: usize = 512 / STEP;

/// The number of bytes that the allocator requests from the system at a time.
const CHUNK: usize = 1 << 20;

/// A minimal allocator that serves one thread and returns no memory to the system.
#[derive(Debug)]
pub struct Floor {
    /// # Invariant
    ///
    /// Every block on a stack is free, and its first word is the address of the next block.
    heads: [*mut Link; CLASSES],
    /// # Invariant
    ///
    /// Nothing uses the memory between `fresh` and `end`.
    fresh: *mut u8,
    end: *mut u8,
}

#[derive(Debug)]
struct Link(*mut Link);

impl Floor {
    /// Allocates an unused part of the chunk, or of a new chunk.
    #[cold]
    #[inline(never)]
    fn carve(&mut self, class: usize) -> *mut u8 {
        let size = (class + 1) * STEP;
        if self.end.addr() - self.fresh.addr() < size {
            // SAFETY: the size of a chunk is not zero.
            self.fresh = unsafe { alloc::alloc(Layout::new::<[u128; CHUNK / 16]>()) };
            if self.fresh.is_null() {
                return ptr::null_mut();
            }
            self.end = self.fresh.wrapping_add(CHUNK);
        }
        let start = self.fresh;
        // INVARIANT: the allocated block lies before the new value of `fresh`.
        self.fresh = start.wrapping_add(size);
        start
    }
}

impl Default for Floor {
    fn default() -> Self {
        Self { heads: [ptr::null_mut(); CLASSES], fresh: ptr::null_mut(), end: ptr::null_mut() }
    }
}

#[inline(always)]
fn class(layout: Layout) -> usize {
    // The remainder never changes the class. It only lets the compiler omit the bounds check.
    ((layout.size() - 1) / STEP) % CLASSES
}

// SAFETY: the blocks of a chunk do not overlap, and a block is on no stack while it is in use.
unsafe impl Contender for Floor {
    #[inline(always)]
    fn alloc(&mut self, layout: Layout) -> *mut u8 {
        let head = self.heads[class(layout)];
        if head.is_null() {
            return self.carve(class(layout));
        }
        // SAFETY: `head` is a free block, and its first word is a link (invariant of `heads`).
        self.heads[class(layout)] = unsafe { head.read() }.0;
        head.cast()
    }

    #[inline(always)]
    unsafe fn free(&mut self, memory: *mut u8, layout: Layout) {
        let head = &mut self.heads[class(layout)];
        let block = memory.cast::<Link>();
        // SAFETY: the block is not used again (contract of `free`), and it is aligned to 16 bytes.
        unsafe { block.write(Link(*head)) };
        // INVARIANT: the block is now free, and its link was written above.
        *head = block;
    }

    #[inline(always)]
    unsafe fn realloc(&mut self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if class(layout) == (size - 1) / STEP {
            return memory;
        }
        // SAFETY: `memory` came from this allocator for `layout` (contract of `realloc`).
        unsafe { moved(self, memory, layout, size) }
    }
}
