//! The shadow of an allocator: a record of the allocator's live blocks, and of the bytes that each
//! live block must contain. A test uses the shadow to check that the allocator keeps these rules:
//!
//! ```text
//!   live blocks by address:    [ 0x1000, 24 bytes, seed 7 ]  [ 0x1020, 8 bytes, seed 9 ] …
//!                                   │
//!   the memory itself:         07 08 09 0a …                 09 0a 0b …
//! ```
//!
//! 1. No two live blocks overlap. A block of 0 bytes has an address that does not lie in another
//!    live block.
//! 2. Every block has the alignment that the allocator promises.
//! 3. A live block contains the bytes that were last written to it.
//!
//! If the allocator breaks a rule, the functions of the shadow panic with a message that describes
//! the blocks concerned.

use std::{collections::BTreeMap, ptr::NonNull};

/// The live blocks of one allocator.
///
/// The shadow fills each new block with a pattern. It checks that the pattern is unchanged when the
/// block is freed or reallocated, and whenever [`check`](Self::check) is called.
#[derive(Debug)]
pub struct Shadow {
    live: BTreeMap<usize, Live>,
    align: usize,
    /// The number of blocks that were ever allocated.
    allocated: usize,
}

#[derive(Clone, Copy, Debug)]
struct Live {
    ptr: NonNull<u8>,
    size: usize,
    seed: u8,
}

impl Live {
    /// Returns the address after the last byte of the block. A block of 0 bytes is treated as if it
    /// had one byte, so that the shadow detects another live block that contains its address.
    fn end(&self) -> usize {
        self.ptr.addr().get() + self.size.max(1)
    }

    fn pattern(&self) -> impl Iterator<Item = u8> {
        let seed = self.seed;
        (0..self.size).map(move |at| seed.wrapping_add(at as u8))
    }

    fn fill(&self) {
        for (at, byte) in self.pattern().enumerate() {
            // SAFETY: the block is live (contract of `allocated`), and `at` is less than its size.
            unsafe { self.ptr.add(at).write(byte) }
        }
    }

    fn check(&self) {
        // SAFETY: the block is live (contract of `allocated`), and `fill` initialised its bytes.
        let bytes = unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.size) };
        if let Some(at) = bytes.iter().zip(self.pattern()).position(|(&is, was)| is != was) {
            let Self { size, ptr, .. } = self;
            panic!("byte {at} of the block of {size} bytes at {ptr:p} was overwritten");
        }
    }
}

impl Shadow {
    /// Creates the shadow of an allocator. The allocator must not have any live blocks yet, and
    /// must align its blocks to `align` bytes.
    pub(crate) fn new(align: usize) -> Self {
        Self { live: BTreeMap::new(), align, allocated: 0 }
    }

    /// Records a new block of `size` bytes at `ptr`, and fills it with a pattern.
    ///
    /// # Safety
    ///
    /// - `ptr` must be valid for reads and writes of `size` bytes, and nobody else may use these
    ///   bytes.
    /// - The bytes must stay valid, and must not be used by anybody else, until the block is passed
    ///   to [`freed`](Self::freed) or [`reallocated`](Self::reallocated).
    pub(crate) unsafe fn allocated(&mut self, ptr: NonNull<u8>, size: usize) {
        let address = ptr.addr().get();
        let align = self.align;
        assert!(address.is_multiple_of(align), "{ptr:p} is not aligned to {align} bytes");
        self.allocated += 1;
        let block = Live { ptr, size, seed: (self.allocated % 251) as u8 + 1 };
        let before = self.live.range(..block.end()).next_back();
        if let Some((_, other)) = before
            && other.end() > address
        {
            panic!(
                "the block of {size} bytes at {ptr:p} overlaps the one of {} bytes at {:p}",
                other.size, other.ptr
            );
        }
        block.fill();
        self.live.insert(address, block);
    }

    /// Checks that every byte of a new block is zero. Then records the block and fills it with a
    /// pattern.
    ///
    /// # Safety
    ///
    /// - The requirements of [`allocated`](Self::allocated) must be met.
    /// - The bytes of the block must be initialised.
    pub(crate) unsafe fn allocated_zeroed(&mut self, ptr: NonNull<u8>, size: usize) {
        // SAFETY: the bytes are initialised, and only the caller uses them (contract of
        // `allocated_zeroed`).
        let bytes = unsafe { std::slice::from_raw_parts(ptr.as_ptr(), size) };
        if let Some(at) = bytes.iter().position(|&byte| byte != 0) {
            panic!("byte {at} of the zeroed block of {size} bytes at {ptr:p} is not zero");
        }
        // SAFETY: the contract of this function includes the contract of `allocated`.
        unsafe { self.allocated(ptr, size) }
    }

    /// Checks the contents of the block at `ptr`, and removes the block from the record. The caller
    /// must call this before the block is freed, because the contents can be read only until then.
    pub(crate) fn freed(&mut self, ptr: NonNull<u8>) {
        self.check_block(ptr);
        self.live.remove(&ptr.addr().get());
    }

    /// Records that the block at `from` was reallocated to `size` bytes at `to`, and checks that
    /// the reallocation kept the contents. `from` and `to` may be the same address.
    ///
    /// # Safety
    ///
    /// - The requirements of [`allocated`](Self::allocated) must be met for `to`.
    /// - The bytes at `to` must be initialised up to the smaller of the old and the new size.
    pub(crate) unsafe fn reallocated(&mut self, from: NonNull<u8>, to: NonNull<u8>, size: usize) {
        let old = self.live.remove(&from.addr().get()).expect("the block is live");
        Live { ptr: to, size: old.size.min(size), ..old }.check();
        // SAFETY: the contract of this function includes the contract of `allocated` for `to`.
        unsafe { self.allocated(to, size) }
    }

    /// Checks the contents of the block at `ptr`. The block stays live.
    pub(crate) fn check_block(&self, ptr: NonNull<u8>) {
        self.live.get(&ptr.addr().get()).expect("the block is live").check();
    }

    /// Checks the contents of every live block.
    ///
    /// # Panics
    ///
    /// Panics if the contents of a live block have changed.
    pub fn check(&self) {
        self.live.values().for_each(Live::check);
    }

    /// Returns the number of live blocks.
    pub fn blocks(&self) -> usize {
        self.live.len()
    }
}

#[cfg(test)]
mod tests;
