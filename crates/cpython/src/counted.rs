//! Counts of the requests to a CPython that keeps its own allocators.
//!
//! ```text
//!   raw ─► Striped ─► CPython's own        mem, obj: the same
//! ```
//!
//! A free-threaded build of CPython has no GIL and cannot use our heap, so it keeps its own
//! allocators. If the user requests statistics, we install hooks that count the requests to each
//! memory domain and forward them to these allocators.

use std::{
    array,
    cell::Cell,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use allocator_api::{
    CAllocator, Domain, VTable,
    hooks::{Counting, Counts, Tally},
};
use raw_mem::MemAlloc;

use crate::{abi::CPython, install::SMALL};

/// The number of sets of counters. Two threads share a set if their numbers are equal modulo
/// `STRIPES`.
const STRIPES: usize = 64;

/// A set of counters that shares no cache line with another set.
///
/// The alignment is two cache lines, because processors often fetch cache lines in pairs.
#[repr(align(128))]
struct Stripe(Counting<CAllocator>);

/// A hook that counts requests, with separate counters for up to [`STRIPES`] threads.
struct Striped {
    own: CAllocator,
    stripes: [Stripe; STRIPES],
}

/// The hooks over all domains. They are never dropped, because CPython may call them until the
/// process ends.
pub(crate) struct Counted {
    domains: [&'static Striped; 3],
}

impl Counted {
    /// Puts a hook over each domain of `python`.
    ///
    /// # Safety
    ///
    /// - The layout of CPython's vtables must be known or checked.
    /// - CPython must not have started.
    pub(crate) unsafe fn install(python: &CPython) -> Self {
        let domains = Domain::ALL.map(|domain| {
            // SAFETY: the vtable is CPython's own, and the hook calls it only as CPython would.
            let own = unsafe { CAllocator::new(python.allocator(domain)) };
            &*Box::leak(Box::new(Striped::new(own)))
        });
        for (domain, striped) in Domain::ALL.into_iter().zip(domains) {
            // SAFETY: the hook forwards every request, so the live blocks stay those of `own`.
            unsafe { python.set_allocator(domain, &VTable::of(striped)) };
        }
        Self { domains }
    }

    /// Returns the counts of `domain`, or `None` if other functions have replaced the hook.
    pub(crate) fn counts(&self, python: &CPython, domain: Domain) -> Option<Counts> {
        let striped = self.domains[domain.index()];
        let is_in_force = python.allocator(domain).is(&VTable::of(striped));
        is_in_force.then(|| striped.counts())
    }

    /// Returns the allocator of CPython that is below the hook of `domain`.
    pub(crate) fn own(&self, domain: Domain) -> VTable {
        self.domains[domain.index()].own.vtable()
    }
}

impl Striped {
    fn new(own: CAllocator) -> Self {
        let stripes = array::from_fn(|_| Stripe(Counting::new(own, SMALL)));
        Self { own, stripes }
    }

    fn here(&self) -> &Counting<CAllocator> {
        &self.stripes[number_of_thread() % STRIPES].0
    }

    fn counts(&self) -> Counts {
        self.stripes.iter().map(|stripe| stripe.0.counts()).fold(Counts::default(), add)
    }
}

fn add(mut sum: Counts, counts: Counts) -> Counts {
    let add = |sum: &mut Tally, tally: Tally| {
        sum.requests += tally.requests;
        sum.bytes += tally.bytes;
        sum.refused += tally.refused;
    };
    add(&mut sum.small, counts.small);
    add(&mut sum.large, counts.large);
    sum
}

/// Returns the number of the calling thread. Threads are numbered in the order of their first
/// requests.
fn number_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    thread_local! {
        /// The thread's number, or 0 before its first request.
        static NUMBER: Cell<usize> = const { Cell::new(0) };
    }
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(NEXT.fetch_add(1, Relaxed));
        }
        number.get()
    })
}

// SAFETY: each request is forwarded unchanged to `own`, and the counters never affect the result.
unsafe impl MemAlloc for Striped {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        self.here().malloc(size)
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        self.here().calloc(count, size)
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: a live block of any stripe is one of `own` (contract of `realloc`).
        unsafe { self.here().realloc(ptr, size) }
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: a live block of any stripe is one of `own` (contract of `free`).
        unsafe { self.own.free(ptr) }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use raw_mem::Malloc;

    use super::*;

    #[test]
    fn the_requests_of_all_threads_are_counted() {
        let hook = Striped::new(CAllocator::of(&Malloc));
        let request = || {
            for size in [100, 1000] {
                let block = hook.malloc(size);
                // SAFETY: `block` is live and not used again.
                unsafe { hook.free(block) };
            }
        };
        thread::scope(|scope| {
            for _ in 0..=STRIPES {
                scope.spawn(request);
            }
        });
        let Counts { small, large, .. } = hook.counts();
        let threads = STRIPES as u64 + 1;
        assert_eq!((small.requests, small.bytes), (threads, 100 * threads));
        assert_eq!((large.requests, large.bytes), (threads, 1000 * threads));
        let used = hook.stripes.iter().filter(|stripe| stripe.0.counts().small.requests > 0);
        assert!(used.count() > 1, "the threads share one set of counters");
    }
}
