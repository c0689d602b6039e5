//! The oracle: what an allocator has handed out, and what must still stand in it.
//!
//! ```text
//!   live blocks, by address:   [ 0x1000, 24 bytes, seed 7 ]  [ 0x1020, 8 bytes, seed 9 ] …
//!                                   │
//!   the memory itself:         07 08 09 0a …                 09 0a 0b …
//! ```
//!
//! 1. No two live blocks overlap, and a block of 0 bytes is distinct from every other.
//! 2. A block is aligned.
//! 3. A live block's bytes are what was last written to it.
//!
//! A broken rule is a panic that names the blocks.

use std::{collections::BTreeMap, ptr::NonNull};

/// Follows every live block of one allocator.
///
/// The shadow writes a pattern into each block that it is told of, and reads it again when the
/// block goes, moves, or when [`check`](Self::check) is called.
#[derive(Debug)]
pub struct Shadow {
    live: BTreeMap<usize, Live>,
    align: usize,
    given: usize,
}

#[derive(Clone, Copy, Debug)]
struct Live {
    ptr: NonNull<u8>,
    size: usize,
    seed: u8,
}

impl Live {
    /// The address after the block; a block of 0 bytes still takes one of its own.
    fn end(&self) -> usize {
        self.ptr.addr().get() + self.size.max(1)
    }

    fn expected(&self) -> impl Iterator<Item = u8> {
        let seed = self.seed;
        (0..self.size).map(move |at| seed.wrapping_add(at as u8))
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the block is live, so its bytes are ours, and the shadow has written them all.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.size) }
    }

    fn fill(&self) {
        for (at, byte) in self.expected().enumerate() {
            // SAFETY: the block is live, and `at` is below its size.
            unsafe { self.ptr.add(at).write(byte) }
        }
    }

    fn check(&self, upto: usize) {
        let wrong =
            self.bytes()[..upto].iter().zip(self.expected()).position(|(&is, was)| is != was);
        if let Some(at) = wrong {
            panic!(
                "byte {at} of the block of {} bytes at {:p} was overwritten",
                self.size, self.ptr
            );
        }
    }
}

impl Shadow {
    /// A shadow of an allocator that has handed out nothing and aligns its blocks to `align`.
    pub fn new(align: usize) -> Self {
        Self { live: BTreeMap::new(), align, given: 0 }
    }

    /// Takes note of a block of `size` bytes that was handed out, and fills it.
    ///
    /// # Safety
    ///
    /// The allocator claims that `ptr` is `size` bytes that the caller may write, until the
    /// block is told to have been [taken](Self::taken) or [moved](Self::moved).
    ///
    /// # Panics
    ///
    /// Panics when the block is not aligned or overlaps a live one.
    pub unsafe fn given(&mut self, ptr: NonNull<u8>, size: usize) {
        assert!(
            ptr.addr().get().is_multiple_of(self.align),
            "{ptr:p} is not aligned to {} bytes",
            self.align
        );
        self.given += 1;
        let block = Live { ptr, size, seed: (self.given % 251) as u8 + 1 };
        let before = self.live.range(..block.end()).next_back();
        if let Some((_, other)) = before
            && other.end() > ptr.addr().get()
        {
            panic!(
                "the block of {size} bytes at {ptr:p} overlaps the one of {} bytes at {:p}",
                other.size, other.ptr
            );
        }
        block.fill();
        self.live.insert(ptr.addr().get(), block);
    }

    /// As [`given`](Self::given), for a block that must read as zero.
    ///
    /// # Safety
    ///
    /// As for [`given`](Self::given); the allocator claims that the bytes are initialised.
    ///
    /// # Panics
    ///
    /// Panics when a byte is not zero, and where [`given`](Self::given) does.
    pub unsafe fn given_zeroed(&mut self, ptr: NonNull<u8>, size: usize) {
        // SAFETY: the caller says that the bytes are its own and initialised.
        let bytes = unsafe { std::slice::from_raw_parts(ptr.as_ptr(), size) };
        if let Some(at) = bytes.iter().position(|&byte| byte != 0) {
            panic!("byte {at} of the zeroed block of {size} bytes at {ptr:p} is not zero");
        }
        // SAFETY: the caller's promise.
        unsafe { self.given(ptr, size) }
    }

    /// Checks the block at `ptr` and forgets it; to be called before it is freed.
    ///
    /// # Panics
    ///
    /// Panics when no such block is live or its contents were overwritten.
    pub fn taken(&mut self, ptr: NonNull<u8>) {
        let block = self.live.remove(&ptr.addr().get()).expect("the block is live");
        block.check(block.size);
    }

    /// Takes note that the block at `from` was reallocated to `size` bytes at `to`, which may be
    /// the same place.
    ///
    /// # Safety
    ///
    /// As for [`given`](Self::given), with `to`; `from` is no longer used.
    ///
    /// # Panics
    ///
    /// Panics when the contents did not move along, and where [`given`](Self::given) does.
    pub unsafe fn moved(&mut self, from: NonNull<u8>, to: NonNull<u8>, size: usize) {
        let old = self.live.remove(&from.addr().get()).expect("the block is live");
        let kept = old.size.min(size);
        Live { ptr: to, size: kept, ..old }.check(kept);
        // SAFETY: the caller's promise.
        unsafe { self.given(to, size) }
    }

    /// Checks the contents of the block at `ptr`, which stays live.
    ///
    /// # Panics
    ///
    /// Panics when no such block is live or its contents were overwritten.
    pub fn still_stands(&self, ptr: NonNull<u8>) {
        let block = self.live.get(&ptr.addr().get()).expect("the block is live");
        block.check(block.size);
    }

    /// Checks the contents of every live block.
    ///
    /// # Panics
    ///
    /// Panics when one was overwritten.
    pub fn check(&self) {
        self.live.values().for_each(|block| block.check(block.size));
    }

    /// How many blocks are live.
    pub fn blocks(&self) -> usize {
        self.live.len()
    }

    /// How many bytes were asked for in live blocks.
    pub fn bytes(&self) -> usize {
        self.live.values().map(|block| block.size).sum()
    }
}

#[cfg(test)]
mod tests;
