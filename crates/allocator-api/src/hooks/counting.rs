//! A hook that counts requests.

use core::ptr::NonNull;

use raw_mem::MemAlloc;
use sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A hook that counts requests and their bytes, separately for small and for large requests.
///
/// A request counts even if it fails. A call to `free` does not count.
///
/// The method [`counts`](Self::counts) reads one counter after the other, without stopping other
/// threads. If another thread makes a request meanwhile, some of the returned counters may include
/// this request and others may not.
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
    /// The requests for at most the threshold, including those for 0 bytes.
    pub small: Tally,
    /// The requests for more than the threshold.
    pub large: Tally,
}

/// The figures of either the small or the large requests.
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
        /// Wraps `below`. Requests for at most `threshold` bytes count as small.
        pub fn new(below: A, threshold: usize) -> Self {
            Self { below, threshold, small: Counters::new(), large: Counters::new() }
        }
    }

    /// Returns the counts so far.
    pub fn counts(&self) -> Counts {
        Counts { small: self.small.tally(), large: self.large.tally() }
    }

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
        // SAFETY: a live block of this hook is one of `below` (contract of `realloc`).
        self.count(size, unsafe { self.below.realloc(ptr, size) })
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: a live block of this hook is one of `below` (contract of `free`).
        unsafe { self.below.free(ptr) }
    }

    unsafe fn usable_size(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: a live block of this hook is one of `below` (contract).
        unsafe { self.below.usable_size(ptr) }
    }

    fn supports_alignment(&self) -> bool {
        self.below.supports_alignment()
    }

    fn malloc_aligned(&self, size: usize, align: usize) -> Option<NonNull<u8>> {
        self.count(size, self.below.malloc_aligned(size, align))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use raw_mem::{Malloc, NoAlloc};

    use super::*;

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn every_hook_knows_the_usable_size_that_the_allocator_below_knows() {
        use crate::{
            CAllocator, Domain,
            hooks::{Debug, Trace, Traces},
        };
        fn usable(hook: impl MemAlloc) -> Option<usize> {
            let block = hook.malloc(100);
            // SAFETY: the block is live, and is freed once.
            unsafe {
                let usable = hook.usable_size(block.unwrap());
                hook.free(block);
                usable
            }
        }
        static TRACES: Traces = Traces::new();
        assert!(usable(Counting::new(Malloc, 512)) >= Some(100));
        assert!(usable(Trace::new(Malloc, Domain::Raw, &TRACES)) >= Some(100));
        assert_eq!(usable(Debug::new(Malloc, Domain::Raw)), Some(100));
        // A vtable has no function for the usable size.
        static VTABLE: CAllocator = CAllocator::of(&Malloc);
        assert_eq!(usable(Counting::new(VTABLE, 512)), None);
    }

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
