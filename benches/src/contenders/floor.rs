//! The least that an allocator of size classes does: a stack for each class.
//!
//! ```text
//!   heads[class] ──► block ──► block ──► block         the first word of a free block is the next
//!   chunk        ├── given ──┼── not yet given ──┤
//! ```
//!
//! It knows no pools, gives nothing back, serves one thread, and frees by the size that it is
//! told. Whoever does any of these things better needs more instructions.
//!
//! That is no bound on time: our heap's pair has more instructions, and takes no longer than this
//! one's.

use std::{
    alloc::{self, Layout},
    ptr,
};

use super::moved;
use crate::contender::Contender;

/// The bytes of a class's step.
const STEP: usize = 16;

/// The classes up to 512 bytes.
const CLASSES: usize = 512 / STEP;

/// The bytes that it takes from the system allocator at a time.
const CHUNK: usize = 1 << 20;

/// A stack of free blocks for each class.
#[derive(Debug)]
pub struct Floor {
    /// # Invariant
    ///
    /// From each head on every block is free, and its first word is the next one.
    heads: [*mut Link; CLASSES],
    /// # Invariant
    ///
    /// From here to `end` the memory is nobody's.
    fresh: *mut u8,
    end: *mut u8,
}

/// The first word of a free block.
#[derive(Debug)]
struct Link(*mut Link);

impl Floor {
    /// One without memory.
    pub const fn new() -> Self {
        Self { heads: [ptr::null_mut(); CLASSES], fresh: ptr::null_mut(), end: ptr::null_mut() }
    }

    /// A block that was never given.
    #[cold]
    #[inline(never)]
    fn carve(&mut self, class: usize) -> *mut u8 {
        let size = (class + 1) * STEP;
        if self.end.addr() - self.fresh.addr() < size {
            // SAFETY: the chunk is of more than no bytes.
            self.fresh = unsafe { alloc::alloc(Layout::new::<[u128; CHUNK / 16]>()) };
            if self.fresh.is_null() {
                return ptr::null_mut();
            }
            self.end = self.fresh.wrapping_add(CHUNK);
        }
        let start = self.fresh;
        // INVARIANT: the block between is given now.
        self.fresh = start.wrapping_add(size);
        start
    }
}

impl Default for Floor {
    fn default() -> Self {
        Self::new()
    }
}

#[inline(always)]
fn class(layout: Layout) -> usize {
    // No workload asks for more than the classes have; the remainder saves the check.
    ((layout.size() - 1) / STEP) % CLASSES
}

// SAFETY: blocks of a class are cut from a chunk side by side, and a block leaves its stack when
// it is given.
unsafe impl Contender for Floor {
    #[inline(always)]
    fn alloc(&mut self, layout: Layout) -> *mut u8 {
        let head = self.heads[class(layout)];
        if head.is_null() {
            return self.carve(class(layout));
        }
        // SAFETY: the invariant of `heads`.
        self.heads[class(layout)] = unsafe { head.read() }.0;
        head.cast()
    }

    #[inline(always)]
    fn alloc_zeroed(&mut self, layout: Layout) -> *mut u8 {
        let start = self.alloc(layout);
        if !start.is_null() {
            // SAFETY: the block is that large, and nobody else's.
            unsafe { start.write_bytes(0, layout.size()) };
        }
        start
    }

    #[inline(always)]
    unsafe fn free(&mut self, memory: *mut u8, layout: Layout) {
        let head = &mut self.heads[class(layout)];
        let block = memory.cast::<Link>();
        // SAFETY: the caller gives the block up; it is aligned to 16.
        unsafe { block.write(Link(*head)) };
        // INVARIANT: the link was written just now.
        *head = block;
    }

    #[inline(always)]
    unsafe fn realloc(&mut self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if class(layout) == (size - 1) / STEP {
            return memory;
        }
        // SAFETY: the caller's promise.
        unsafe { moved(self, memory, layout, size) }
    }
}
