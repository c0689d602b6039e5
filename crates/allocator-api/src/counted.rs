//! Counts the allocations that a piece of code makes, for use in tests.
//!
//! ```
//! use std::alloc::System;
//! use allocator_api::counted::{Counted, count};
//!
//! #[global_allocator]
//! static GLOBAL: Counted<System> = Counted::new(System);
//!
//! // Each of the 96 boxes is one allocation, and the vector is another one.
//! let boxes = count(|| drop((0..96).map(Box::new).collect::<Vec<_>>()));
//! boxes.assert_made(97).assert_leaves_none();
//!
//! count(|| (0..96).sum::<i32>()).assert_made(0);
//! ```
//!
//! Only allocations of the calling thread are counted, so tests can run in parallel.

use core::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
    hint::black_box,
};

std::thread_local! {
    static COUNTS: Cell<Allocations> = const { Cell::new(Allocations::NONE) };
}

/// A global allocator that counts the requests of each thread to another global allocator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted<A>(A);

impl<A> Counted<A> {
    /// Wraps `below`.
    pub const fn new(below: A) -> Self {
        Self(below)
    }
}

/// The numbers of blocks and bytes that a thread allocated and freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocations {
    /// The number of blocks that were allocated.
    pub made: u64,
    /// The number of blocks that were freed.
    pub freed: u64,
    /// The number of blocks that were resized.
    pub resized: u64,
    /// The number of bytes that were allocated, including those of resized blocks.
    pub bytes_made: u64,
    /// The number of bytes that were freed, including those of resized blocks.
    pub bytes_freed: u64,
}

impl Allocations {
    const NONE: Self = Self { made: 0, freed: 0, resized: 0, bytes_made: 0, bytes_freed: 0 };

    fn since(self, older: Self) -> Self {
        Self {
            made: self.made - older.made,
            freed: self.freed - older.freed,
            resized: self.resized - older.resized,
            bytes_made: self.bytes_made.wrapping_sub(older.bytes_made),
            bytes_freed: self.bytes_freed.wrapping_sub(older.bytes_freed),
        }
    }

    /// Returns how many more blocks were allocated than freed.
    pub const fn blocks_left(self) -> i64 {
        self.made.cast_signed() - self.freed.cast_signed()
    }

    /// Returns how many more bytes were allocated than freed.
    pub const fn bytes_left(self) -> i64 {
        self.bytes_made.wrapping_sub(self.bytes_freed).cast_signed()
    }

    /// Asserts that exactly `blocks` blocks were allocated.
    ///
    /// # Panics
    ///
    /// Panics if the number differs.
    #[track_caller]
    pub fn assert_made(self, blocks: u64) -> Self {
        assert!(self.made == blocks, "{} allocations instead of {blocks}: {self:?}", self.made);
        self
    }

    /// Asserts that as many blocks and bytes were freed as allocated.
    ///
    /// # Panics
    ///
    /// Panics if blocks or bytes are left.
    #[track_caller]
    pub fn assert_leaves_none(self) -> Self {
        let (blocks, bytes) = (self.blocks_left(), self.bytes_left());
        assert!((blocks, bytes) == (0, 0), "{blocks} blocks and {bytes} bytes are left: {self:?}");
        self
    }
}

/// Calls `work`, and returns what this thread allocated and freed during the call.
///
/// # Panics
///
/// Panics if [`Counted`] is not the global allocator, because nothing would be counted.
#[track_caller]
#[must_use]
pub fn count<R>(work: impl FnOnce() -> R) -> Allocations {
    count_with(work).1
}

/// Calls `work`, and returns its result and what this thread allocated and freed during the call.
///
/// The caller gets the result, so memory that the result owns counts as allocated but not freed.
///
/// # Panics
///
/// Panics if [`Counted`] is not the global allocator, because nothing would be counted.
#[track_caller]
pub fn count_with<R>(work: impl FnOnce() -> R) -> (R, Allocations) {
    let before = COUNTS.get();
    drop(black_box(Box::new(0_u8)));
    let start = COUNTS.get();
    assert!(start.made > before.made, "`Counted` is not the global allocator");
    let result = work();
    (result, COUNTS.get().since(start))
}

fn update(change: impl FnOnce(&mut Allocations)) {
    let mut counts = COUNTS.get();
    change(&mut counts);
    COUNTS.set(counts);
}

impl<A> Counted<A> {
    fn made(&self, block: *mut u8, size: usize) -> *mut u8 {
        if !block.is_null() {
            update(|counts| {
                counts.made += 1;
                counts.bytes_made = counts.bytes_made.wrapping_add(size as u64);
            });
        }
        block
    }
}

// SAFETY: every request is passed unchanged to `A`, which implements `GlobalAlloc`. Counting
// allocates nothing. It does not unwind, because the sums of bytes wrap, and the other counters do
// not overflow before a thread makes 2^64 requests.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counted<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the contract is the same.
        self.made(unsafe { self.0.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the contract is the same.
        self.made(unsafe { self.0.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        update(|counts| {
            counts.freed += 1;
            counts.bytes_freed = counts.bytes_freed.wrapping_add(layout.size() as u64);
        });
        // SAFETY: the contract is the same.
        unsafe { self.0.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the contract is the same.
        let moved = unsafe { self.0.realloc(ptr, layout, new_size) };
        if !moved.is_null() {
            update(|counts| {
                counts.resized += 1;
                counts.bytes_made = counts.bytes_made.wrapping_add(new_size as u64);
                counts.bytes_freed = counts.bytes_freed.wrapping_add(layout.size() as u64);
            });
        }
        moved
    }
}
