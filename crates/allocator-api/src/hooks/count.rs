//! A hook that counts: how many requests, for how many bytes, below and above a threshold.

use core::ptr::NonNull;

use raw_mem::MemAlloc;
use sync::atomic::{AtomicU64, Ordering::Relaxed};

/// An allocator that counts what is asked of the one below it.
///
/// `malloc`, `calloc` and `realloc` are requests, granted or not; `free` is none. The counters are
/// Relaxed: each is exact, and two read while others allocate need not agree.
#[derive(Debug)]
pub struct Counted<A> {
    below: A,
    threshold: usize,
    small: Counters,
    large: Counters,
}

/// What a [`Counted`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Requests of at most the threshold, those of 0 bytes among them.
    pub small: Tally,
    /// Requests above the threshold.
    pub large: Tally,
}

/// Requests of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// How many there were.
    pub requests: u64,
    /// The bytes that they asked for, all together.
    pub bytes: u64,
    /// How many of them got no memory.
    pub refused: u64,
}

#[derive(Debug)]
struct Counters {
    requests: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
}

impl Counters {
    sync::const_unless_model! {
        fn new() -> Self {
            Self {
                requests: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
                refused: AtomicU64::new(0),
            }
        }
    }

    fn tally(&self) -> Tally {
        Tally {
            requests: self.requests.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            refused: self.refused.load(Relaxed),
        }
    }
}

impl<A> Counted<A> {
    sync::const_unless_model! {
        /// Counts the requests to `below`; up to `threshold` bytes they are small.
        pub fn new(below: A, threshold: usize) -> Self {
            Self { below, threshold, small: Counters::new(), large: Counters::new() }
        }
    }

    /// The allocator below.
    pub const fn below(&self) -> &A {
        &self.below
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        Counts { small: self.small.tally(), large: self.large.tally() }
    }

    /// Counts a request of `bytes` that came out as `outcome`.
    fn count(&self, bytes: usize, outcome: Option<NonNull<u8>>) -> Option<NonNull<u8>> {
        let counters = if bytes <= self.threshold { &self.small } else { &self.large };
        counters.requests.fetch_add(1, Relaxed);
        counters.bytes.fetch_add(bytes as u64, Relaxed);
        if outcome.is_none() {
            counters.refused.fetch_add(1, Relaxed);
        }
        outcome
    }
}

// SAFETY: every promise is that of the allocator below, and it is asked unchanged.
unsafe impl<A: MemAlloc> MemAlloc for Counted<A> {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        self.count(size, self.below.malloc(size))
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        self.count(count.saturating_mul(size), self.below.calloc(count, size))
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: the caller's promise is about the blocks of the allocator below.
        self.count(size, unsafe { self.below.realloc(ptr, size) })
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: the caller's promise is about the blocks of the allocator below.
        unsafe { self.below.free(ptr) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use raw_mem::{Malloc, NoAlloc};

    use super::*;

    #[test]
    fn requests_and_bytes_are_counted_apart_below_and_above_the_threshold() {
        let counted = Counted::new(Malloc, 512);
        let blocks = [counted.malloc(0), counted.calloc(8, 64), counted.malloc(513)];
        // SAFETY: the first block is live and replaced.
        let moved = unsafe { counted.realloc(blocks[0], 100) };
        for block in [moved, blocks[1], blocks[2], None] {
            // SAFETY: null, or a live block that is not used again.
            unsafe { counted.free(block) };
        }
        let Counts { small, large } = counted.counts();
        assert_eq!(small, Tally { requests: 3, bytes: 612, refused: 0 });
        assert_eq!(large, Tally { requests: 1, bytes: 513, refused: 0 });
    }

    #[test]
    fn a_request_that_got_no_memory_is_counted_as_refused() {
        let counted = Counted::new(NoAlloc, 512);
        assert_eq!(counted.malloc(8), None);
        assert_eq!(counted.calloc(usize::MAX, 2), None);
        let Counts { small, large } = counted.counts();
        assert_eq!(small, Tally { requests: 1, bytes: 8, refused: 1 });
        assert_eq!((large.requests, large.refused), (1, 1));
    }
}
