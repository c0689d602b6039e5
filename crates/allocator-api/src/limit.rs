//! A limit on the number of bytes that one domain has in use.
//!
//! The hook [`Limited`] counts the bytes of every request to a memory domain. A limit on a whole
//! heap or process costs less, because it counts mapped memory, and is checked only when memory is
//! mapped. Mapped memory cannot be counted for a domain such as `Domain::Mem`, because the domain
//! does not map memory itself.

use core::{cell::Cell, ptr::NonNull};
use std::collections::BTreeMap;

use raw_mem::{
    LimitReached, Limits, MemAlloc, Usage, calloc_size, warn_of_soft_limit, without_unwinding,
};
use sync::Mutex;

/// A hook that limits how many bytes may be in use in the allocator below it.
///
/// Before the hook refuses a request because of the hard limit, it calls a callback, which can free
/// memory. If the callback returns true, the hook tries the same request again. If the callback
/// panics, the process is aborted. If the callback itself makes a request that exceeds a limit, the
/// hook refuses that request and does not call the callback again. If the original request resizes
/// a block, the callback must not free or resize that block.
///
/// The hook counts the bytes of a request as in use before it passes the request to the allocator
/// below. Otherwise, several threads that allocate at the same time could together exceed the hard
/// limit. If the request fails, the hook subtracts its bytes again.
///
/// A failed request normally affects neither the peak nor the soft limit. Its bytes count for them
/// only if another thread gets a block before the bytes are subtracted.
///
/// The allocator that `Limited` wraps should know the [usable size](MemAlloc::usable_size) of its
/// blocks. If it does not, `Limited` stores the size of each block in a table. `Limited` holds its
/// lock while it allocates memory for this table, and it gets this memory from the global
/// allocator. In this case, `Limited` must not be part of the global allocator. Otherwise, an
/// allocation for the table would call `Limited` again, and would wait forever for the lock that
/// `Limited` already holds.
///
/// ```
/// use allocator_api::Limited;
/// use raw_mem::{Limits, Malloc, MemAlloc};
///
/// let limited = Limited::new(Malloc, Limits::hard(10_000), |_| false);
/// let block = limited.malloc(8_000);
/// assert!(block.is_some() && limited.malloc(8_000).is_none());
/// // SAFETY: the block is live, and is not used again.
/// unsafe { limited.free(block) };
/// assert_eq!(limited.used(), 0);
/// ```
pub struct Limited<A> {
    below: A,
    state: Mutex<State>,
    before_refusal: fn(LimitReached) -> bool,
}

struct State {
    usage: Usage,
    /// The requested sizes of the blocks whose usable size is not known, by address.
    sizes: BTreeMap<usize, usize>,
}

thread_local! {
    /// True while this thread runs the callback of any [`Limited`].
    static IS_ASKING: Cell<bool> = const { Cell::new(false) };
}

impl<A: MemAlloc> Limited<A> {
    /// Wraps `below`, which must not have any live blocks. [`Limited`] describes the callback.
    pub fn new(below: A, limits: Limits, before_refusal: fn(LimitReached) -> bool) -> Self {
        let state = State { usage: Usage::new(limits), sizes: BTreeMap::new() };
        Self { below, state: Mutex::new(state), before_refusal }
    }

    /// Returns how many bytes are in use.
    pub fn used(&self) -> usize {
        sync::lock(&self.state).usage.bytes()
    }

    /// Returns the largest number of bytes that were in use at the same time.
    pub fn highwater(&self) -> usize {
        sync::lock(&self.state).usage.highwater()
    }

    /// Counts `bytes` as in use before the request for them is made (see [`Usage::hold`]).
    ///
    /// If the bytes would exceed the hard limit, the function calls the program's callback, which
    /// may free memory. If the callback returns true, the function tries once more to count the
    /// bytes. It returns true if the bytes were counted.
    fn charge(&self, bytes: usize) -> bool {
        match self.try_charge(bytes) {
            None => true,
            Some(reached) => self.ask(reached) && self.try_charge(bytes).is_none(),
        }
    }

    /// Counts `bytes` as in use before the request for them is made. If they would exceed the hard
    /// limit, counts nothing and returns the limit that was reached.
    fn try_charge(&self, bytes: usize) -> Option<LimitReached> {
        let mut state = sync::lock(&self.state);
        if state.usage.allows(bytes) {
            state.usage.hold(bytes);
        }
        state.usage.refusal()
    }

    /// Calls the callback. Returns true if the request should be repeated.
    ///
    /// If this thread is already running the callback of a [`Limited`], returns false and does not
    /// call the callback.
    ///
    /// The callback runs without the lock of `self.state`, because it may free memory of this
    /// domain, which takes this lock.
    #[cold]
    fn ask(&self, reached: LimitReached) -> bool {
        if IS_ASKING.replace(true) {
            return false;
        }
        let may_retry = without_unwinding(|| (self.before_refusal)(reached));
        IS_ASKING.set(false);
        may_retry
    }

    /// Counts the size of `block` instead of the `charged` bytes that were held for the request.
    ///
    /// The argument `block` is the result of the request. If it is `None`, the request failed, so
    /// the function subtracts `charged` and counts nothing instead.
    ///
    /// If the bytes in use exceed the soft limit for the first time, the function writes a warning.
    fn adjust(&self, block: Option<NonNull<u8>>, charged: usize) -> Option<NonNull<u8>> {
        // SAFETY: the block is live, and came from `below`.
        let usable = block.and_then(|block| unsafe { self.below.usable_size(block) });
        let mut state = sync::lock(&self.state);
        state.usage.remove(charged);
        let address = block?.addr().get();
        if state.usage.add(usable.unwrap_or(charged)) {
            warn_of_soft_limit(&state.usage);
        }
        if usable.is_none() {
            state.sizes.insert(address, charged);
        }
        block
    }

    /// Removes a block from the table. Returns its size, and true if its size came from the table.
    ///
    /// # Safety
    ///
    /// - `block` must be a live block of `below`.
    unsafe fn forget(&self, block: NonNull<u8>) -> (usize, bool) {
        // SAFETY: the block is live (contract).
        let usable = unsafe { self.below.usable_size(block) };
        let mut state = sync::lock(&self.state);
        match usable {
            Some(usable) => (usable, false),
            None => (state.sizes.remove(&block.addr().get()).unwrap_or(0), true),
        }
    }
}

// SAFETY: the hook forwards every request to `below` that it does not refuse.
unsafe impl<A: MemAlloc> MemAlloc for Limited<A> {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        if !self.charge(size) {
            return None;
        }
        self.adjust(self.below.malloc(size), size)
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        let bytes = calloc_size(count, size)?;
        if !self.charge(bytes) {
            return None;
        }
        self.adjust(self.below.calloc(count, size), bytes)
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        let Some(old) = ptr else { return self.malloc(size) };
        // SAFETY: the block is live (contract). Only its size is read.
        let known = unsafe { self.below.usable_size(old) };
        let table = || sync::lock(&self.state).sizes.get(&old.addr().get()).copied();
        let before = known.or_else(table).unwrap_or(0);
        // We charge only the bytes by which the block grows. Its previous size is already charged.
        if !self.charge(size.saturating_sub(before)) {
            return None;
        }
        // We forget the block first, because another thread can get its address once the block has
        // moved.
        // SAFETY: as above.
        let (before, was_listed) = unsafe { self.forget(old) };
        // SAFETY: the block came from `below` (contract).
        let new = unsafe { self.below.realloc(ptr, size) };
        let charged = before + size.saturating_sub(before);
        if new.is_none() {
            let mut state = sync::lock(&self.state);
            state.usage.remove(charged - before);
            if was_listed {
                state.sizes.insert(old.addr().get(), before);
            }
            return None;
        }
        if charged > size {
            sync::lock(&self.state).usage.remove(charged - size);
        }
        self.adjust(new, size)
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        let Some(block) = ptr else { return };
        // SAFETY: the block is live (contract).
        let (size, _) = unsafe { self.forget(block) };
        sync::lock(&self.state).usage.remove(size);
        // SAFETY: the block came from `below`, and is not used again (contract).
        unsafe { self.below.free(ptr) }
    }

    unsafe fn usable_size(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: the block came from `below` (contract).
        unsafe { self.below.usable_size(ptr) }
    }

    fn supports_alignment(&self) -> bool {
        self.below.supports_alignment()
    }

    fn malloc_aligned(&self, size: usize, align: usize) -> Option<NonNull<u8>> {
        if !self.charge(size) {
            return None;
        }
        self.adjust(self.below.malloc_aligned(size, align), size)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        thread,
        time::{Duration, Instant},
    };

    use raw_mem::Malloc;

    use super::*;
    use crate::{CAllocator, Domain, hooks::Debug};

    /// A vtable does not report the usable size of a block, so the hook uses its table.
    static NAMELESS: CAllocator = CAllocator::of(&Malloc);

    fn behaves(below: impl MemAlloc) {
        let limited = Limited::new(below, Limits::hard(100_000), |_| false);
        let one = limited.malloc(40_000).unwrap();
        let other = limited.calloc(4, 10_000).unwrap();
        assert!((80_000..90_000).contains(&limited.used()), "{}", limited.used());
        assert_eq!((limited.malloc(40_000), limited.calloc(usize::MAX, 2)), (None, None));
        // SAFETY: the block is live. It stays live if the call fails.
        let one = unsafe {
            assert_eq!(limited.realloc(Some(one), 90_000), None);
            one.write(7);
            let one = limited.realloc(Some(one), 50_000).unwrap();
            assert_eq!(one.read(), 7);
            limited.realloc(Some(one), 100).unwrap()
        };
        assert!((40_100..50_000).contains(&limited.used()), "{}", limited.used());
        for block in [Some(one), Some(other), None] {
            // SAFETY: null, or a live block that is not used again.
            unsafe { limited.free(block) };
        }
        assert_eq!(limited.used(), 0);
        assert!(limited.highwater() >= 80_000);
        assert!(limited.malloc(90_000).is_some());
    }

    #[test]
    fn bytes_are_counted_whether_or_not_the_size_of_a_block_is_known() {
        behaves(Malloc);
        behaves(NAMELESS);
    }

    #[test]
    fn aligned_blocks_are_counted_and_refused_above_the_limit() {
        let limited = Limited::new(Debug::new(Malloc, Domain::Raw), Limits::hard(1000), |_| false);
        let block = limited.malloc_aligned(600, 64).unwrap();
        assert!(limited.used() >= 600 && limited.supports_alignment());
        assert_eq!((limited.malloc_aligned(600, 64), block.addr().get() % 64), (None, 0));
        // SAFETY: the block is live and not used again.
        unsafe { limited.free(Some(block)) };
        assert_eq!(limited.used(), 0);
    }

    /// The number of threads that have entered the callback.
    static INSIDE: AtomicUsize = AtomicUsize::new(0);

    #[test]
    fn a_callback_of_one_thread_does_not_keep_that_of_another_thread_from_running() {
        let limited = Limited::new(Malloc, Limits::hard(1000), |_| {
            INSIDE.fetch_add(1, Relaxed);
            let start = Instant::now();
            while INSIDE.load(Relaxed) < 2 && start.elapsed() < Duration::from_secs(60) {
                thread::yield_now();
            }
            false
        });
        thread::scope(|scope| {
            let threads = [(); 2].map(|()| scope.spawn(|| limited.malloc(2000).is_none()));
            assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
        });
        assert_eq!(INSIDE.load(Relaxed), 2);
    }

    static CALLS: AtomicUsize = AtomicUsize::new(0);

    #[test]
    fn the_callback_runs_before_a_refusal() {
        let limited = Limited::new(Malloc, Limits::hard(1000), |reached| {
            assert_eq!((reached.requested, reached.limit), (2000, 1000));
            CALLS.fetch_add(1, Relaxed);
            false
        });
        assert_eq!((limited.malloc(2000), CALLS.load(Relaxed)), (None, 1));
    }
}
