//! Allocators that wrap another allocator and observe its requests.
//!
//! A hook uses the wrapped allocator only through the trait [`MemAlloc`], and implements the same
//! trait. Hooks can therefore be stacked in any order, and a hook that is not part of the stack
//! costs nothing.

use core::ptr::NonNull;

use raw_mem::MemAlloc;
use sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A hook that counts requests and their bytes. It counts small requests, of at most a given number
/// of bytes, separately from larger ones.
///
/// Calls to `malloc`, `calloc` and `realloc` count as requests whether or not they succeed. Calls
/// to `free` are not counted. Each counter is exact, but the counters are read one after the other.
/// If other threads allocate in the meantime, one counter may include a request that another
/// counter does not include yet.
#[derive(Debug)]
pub struct Counting<A> {
    below: A,
    threshold: usize,
    small: Counters,
    large: Counters,
}

/// The figures of a [`Counting`] hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// The requests for at most as many bytes as the threshold, including requests for 0 bytes.
    pub small: Tally,
    /// The requests for more bytes than the threshold.
    pub large: Tally,
}

/// The figures of the requests of one kind, either small or large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// The number of requests.
    pub requests: u64,
    /// The total number of bytes that were requested.
    pub bytes: u64,
    /// The number of requests that failed.
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

impl<A> Counting<A> {
    sync::const_unless_model! {
        /// Wraps `below`. Requests for at most `threshold` bytes are counted as small, and all
        /// others as large.
        pub fn new(below: A, threshold: usize) -> Self {
            Self { below, threshold, small: Counters::new(), large: Counters::new() }
        }
    }

    /// Returns the figures so far.
    pub fn counts(&self) -> Counts {
        Counts { small: self.small.tally(), large: self.large.tally() }
    }

    /// Counts a request for `bytes` bytes and returns its `outcome`.
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

// SAFETY: the hook forwards every request unchanged to `below`, which implements `MemAlloc`.
unsafe impl<A: MemAlloc> MemAlloc for Counting<A> {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        self.count(size, self.below.malloc(size))
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        self.count(count.saturating_mul(size), self.below.calloc(count, size))
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: `ptr` is null or a live block of this hook (contract of `realloc`), and all of
        // the hook's blocks come from `below`.
        self.count(size, unsafe { self.below.realloc(ptr, size) })
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: `ptr` is null or a live block of this hook (contract of `free`), and all of the
        // hook's blocks come from `below`.
        unsafe { self.below.free(ptr) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use raw_mem::{Malloc, NoAlloc};

    use super::*;

    #[test]
    fn requests_and_bytes_are_counted_below_and_above_the_threshold() {
        let hook = Counting::new(Malloc, 512);
        let blocks = [hook.malloc(0), hook.calloc(8, 64), hook.malloc(513)];
        // SAFETY: the first block is live and not used again.
        let moved = unsafe { hook.realloc(blocks[0], 100) };
        for block in [moved, blocks[1], blocks[2], None] {
            // SAFETY: null, or a live block that is not used again.
            unsafe { hook.free(block) };
        }
        let Counts { small, large } = hook.counts();
        assert_eq!(small, Tally { requests: 3, bytes: 612, refused: 0 });
        assert_eq!(large, Tally { requests: 1, bytes: 513, refused: 0 });
    }

    #[test]
    fn a_request_that_got_no_memory_is_counted_as_refused() {
        let hook = Counting::new(NoAlloc, 512);
        assert_eq!(hook.malloc(8), None);
        assert_eq!(hook.calloc(usize::MAX, 2), None);
        let Counts { small, large } = hook.counts();
        assert_eq!(small, Tally { requests: 1, bytes: 8, refused: 1 });
        assert_eq!((large.requests, large.refused), (1, 1));
    }
}
