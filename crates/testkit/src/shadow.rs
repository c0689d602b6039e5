//! A shadow records an allocator's live blocks, and panics if the allocator breaks a rule:
//!
//! 1. Live blocks do not overlap.
//! 2. Every block has the promised alignment.
//! 3. A live block keeps its contents.
//!
//! A block of 0 bytes counts as one byte.

use std::{collections::BTreeMap, ptr::NonNull};

/// The live blocks of one allocator.
///
/// Each block is filled with a pattern, which is checked when the block is freed or resized.
#[derive(Debug)]
pub struct Shadow {
    live: BTreeMap<usize, Live>,
    align: usize,
    allocated: usize,
}

#[derive(Clone, Copy, Debug)]
struct Live {
    ptr: NonNull<u8>,
    size: usize,
    seed: u8,
}

impl Live {
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
    pub(crate) fn new(align: usize) -> Self {
        Self { live: BTreeMap::new(), align, allocated: 0 }
    }

    /// Records a new block of `size` bytes at `ptr`, and fills it with a pattern.
    ///
    /// # Safety
    ///
    /// Until the block is [`freed`](Self::freed) or [`reallocated`](Self::reallocated):
    ///
    /// - `ptr` must be valid for reads and writes of `size` bytes.
    /// - Nothing else may use these bytes.
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

    /// Checks that a new block is zeroed, and records it.
    ///
    /// # Safety
    ///
    /// - The bytes must be initialised, and meet the contract of [`allocated`](Self::allocated).
    pub(crate) unsafe fn allocated_zeroed(&mut self, ptr: NonNull<u8>, size: usize) {
        // SAFETY: the bytes are initialised and only the caller uses them (contract).
        let bytes = unsafe { std::slice::from_raw_parts(ptr.as_ptr(), size) };
        if let Some(at) = bytes.iter().position(|&byte| byte != 0) {
            panic!("byte {at} of the zeroed block of {size} bytes at {ptr:p} is not zero");
        }
        // SAFETY: the contract of `allocated_zeroed` includes that of `allocated`.
        unsafe { self.allocated(ptr, size) }
    }

    /// Checks a block that is about to be freed, and removes it from the record.
    pub(crate) fn freed(&mut self, ptr: NonNull<u8>) {
        self.check_block(ptr);
        self.live.remove(&ptr.addr().get());
    }

    /// Records that a reallocation has moved a block from `from` to `to`, where it has `size`
    /// bytes. Checks that the block kept its contents.
    ///
    /// # Safety
    ///
    /// - `to` and `size` must meet the safety requirements of [`allocated`](Self::allocated).
    /// - Let `n` be the smaller of the old and the new size of the block. The first `n` bytes at
    ///   `to` must be initialised.
    pub(crate) unsafe fn reallocated(&mut self, from: NonNull<u8>, to: NonNull<u8>, size: usize) {
        let old = self.live.remove(&from.addr().get()).expect("the block is live");
        Live { ptr: to, size: old.size.min(size), ..old }.check();
        // SAFETY: the contract of `reallocated` includes that of `allocated` for `to`.
        unsafe { self.allocated(to, size) }
    }

    pub(crate) fn check_block(&self, ptr: NonNull<u8>) {
        self.live.get(&ptr.addr().get()).expect("the block is live").check();
    }

    /// Checks the contents of every live block.
    ///
    /// # Panics
    ///
    /// Panics if the contents of a block have changed.
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
