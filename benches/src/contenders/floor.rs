//! The least that an allocator of size classes does: a stack for each class.
//!
//! ```text
//!   heads[class] ──► block ──► block ──► block      the first word of a free block links to the next
//!   chunk        ├── allocated ──┼── fresh ──┤
//! ```
//!
//! It has no pools, returns no memory to the system, serves one thread, and trusts the size that it
//! gets with a free. Any of these features costs more instructions.
//!
//! This is no bound on time. A pair on our heap has more instructions and takes no longer.

use std::{
    alloc::{self, Layout},
    ptr,
};

use crate::contender::{Contender, moved};

/// The size difference between two classes, in bytes.
const STEP: usize = 16;

/// The classes up to 512 bytes.
const CLASSES: usize = 512 / STEP;

/// The bytes that it requests from the system allocator at a time.
const CHUNK: usize = 1 << 20;

/// A stack of free blocks for each class.
#[derive(Debug)]
pub struct Floor {
    /// # Invariant
    ///
    /// Every block on a stack is free, and its first word links to the next one.
    heads: [*mut Link; CLASSES],
    /// # Invariant
    ///
    /// Nothing uses the memory from here to `end`.
    fresh: *mut u8,
    end: *mut u8,
}

/// The first word of a free block.
#[derive(Debug)]
struct Link(*mut Link);

impl Floor {
    /// Allocates a fresh block.
    #[cold]
    #[inline(never)]
    fn carve(&mut self, class: usize) -> *mut u8 {
        let size = (class + 1) * STEP;
        if self.end.addr() - self.fresh.addr() < size {
            // SAFETY: a chunk has more than zero bytes.
            self.fresh = unsafe { alloc::alloc(Layout::new::<[u128; CHUNK / 16]>()) };
            if self.fresh.is_null() {
                return ptr::null_mut();
            }
            self.end = self.fresh.wrapping_add(CHUNK);
        }
        let start = self.fresh;
        // INVARIANT: the allocated block lies before the new start.
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
    // No workload asks for more than the largest class has. The remainder avoids the bounds check.
    ((layout.size() - 1) / STEP) % CLASSES
}

// SAFETY: blocks of a chunk do not overlap, and a block is on no stack while it is in use.
unsafe impl Contender for Floor {
    #[inline(always)]
    fn alloc(&mut self, layout: Layout) -> *mut u8 {
        let head = self.heads[class(layout)];
        if head.is_null() {
            return self.carve(class(layout));
        }
        // SAFETY: the head is a free block, whose first word is a link (invariant of `heads`).
        self.heads[class(layout)] = unsafe { head.read() }.0;
        head.cast()
    }

    #[inline(always)]
    unsafe fn free(&mut self, memory: *mut u8, layout: Layout) {
        let head = &mut self.heads[class(layout)];
        let block = memory.cast::<Link>();
        // SAFETY: the block is not used again (contract of `free`), and it is aligned to 16.
        unsafe { block.write(Link(*head)) };
        // INVARIANT: the block is free now, and its link was written above.
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
