//! Guards around a heap. [`Locked`] has its own lock, and [`GilHeld`] relies on a lock of the
//! caller.
//!
//! Other crates must never get a `&mut Heap`, because they could then replace the heap, which would
//! unmap blocks in use.

use core::{cell::UnsafeCell, fmt};

use raw_mem::{ArenaSource, MemAlloc};

use crate::{
    entry::claim::KnownArenas,
    geometry::Geometry,
    heap::{Heap, stats::Stats},
};

/// Safe operations on a guarded heap, such as [`GilHeld`] or [`Locked`].
///
/// None of these operations affects a block in use. No unsafe code relies on an implementation of
/// this trait.
pub trait Access {
    /// Walks the heap and returns its statistics. O(pools).
    fn stats(&self) -> Stats;

    /// Returns true if `address` lies in an arena of the heap.
    fn contains(&self, address: usize) -> bool;

    /// Returns as much unused memory to the system as possible. See [`Heap::trim`].
    ///
    /// The result is the number of bytes returned to the system.
    fn trim(&self) -> usize;

    /// Asserts every rule of the [crate's page](crate).
    ///
    /// # Panics
    ///
    /// Panics if the heap breaks a rule. The message says which rule.
    fn check_invariants(&self);
}

/// Exclusive access to a guarded heap. The trait is private, to hide `&mut Heap` from other crates.
///
/// # Safety
///
/// - Every call of [`enter`](Self::enter) on the same value must pass the same heap to the argument
///   `visit`.
/// - While `visit` runs, nothing else may borrow this heap.
pub(crate) unsafe trait Enter {
    type Heap;

    /// Calls `visit` with the heap. `visit` must not call `enter` on the same value again.
    fn enter<R>(&self, visit: impl FnOnce(&mut Self::Heap) -> R) -> R;
}

impl<X, S, M, L, G> Access for X
where
    X: Enter<Heap = Heap<KnownArenas<S, M, G>, L, G>>,
    S: ArenaSource,
    M: MemAlloc,
    L: MemAlloc,
    G: Geometry,
{
    fn stats(&self) -> Stats {
        self.enter(|heap| heap.stats().with_map(heap.source().map()))
    }

    fn contains(&self, address: usize) -> bool {
        self.enter(|heap| heap.source().contains(address))
    }

    fn trim(&self) -> usize {
        self.enter(Heap::trim)
    }

    fn check_invariants(&self) {
        self.enter(|heap| heap.check_invariants());
    }
}

/// A heap that is protected by a lock which every caller already holds, such as CPython's GIL.
pub struct GilHeld<H>(UnsafeCell<H>);

// SAFETY: no two calls into the heap run at the same time (contract of `new`).
unsafe impl<H: Send> Sync for GilHeld<H> {}

impl<H> GilHeld<H> {
    /// Wraps `heap` without adding a lock.
    ///
    /// # Safety
    ///
    /// - Calls of the returned `GilHeld`'s methods must not overlap, whether on one thread or on
    ///   several.
    /// - The arena source of `heap`, and the allocator of its metadata, must not call into `heap`.
    /// - The functions of the heap's [`PurgePolicy`](crate::PurgePolicy) must not call into `heap`.
    ///
    /// The first rule also covers calls to an allocator that contains this value or refers to it.
    pub const unsafe fn new(heap: H) -> Self {
        Self(UnsafeCell::new(heap))
    }
}

// SAFETY: only `enter` gives access to the one heap, and nothing else borrows the heap while
// `visit` runs, because at most one call runs at a time (contract of `new`).
unsafe impl<H> Enter for GilHeld<H> {
    type Heap = H;

    #[inline]
    fn enter<R>(&self, visit: impl FnOnce(&mut H) -> R) -> R {
        // SAFETY: at most one call runs at a time (contract of `new`).
        visit(unsafe { &mut *self.0.get() })
    }
}

/// Safe code cannot replace a heap inside `Locked`, which would unmap blocks in use:
///
/// ```
/// # use obmalloc::{Access, Heap, KnownArenas, Locked, Pymalloc};
/// # use raw_mem::{Malloc, MmapArenas};
/// # type H = Heap<KnownArenas<MmapArenas, Malloc>, Malloc>;
/// # fn heap() -> H { Heap::new(KnownArenas::new(MmapArenas::new(), Malloc), Malloc) }
/// // SAFETY: malloc does not serve memory of the heap's arenas.
/// let pymalloc = unsafe { Pymalloc::new(Locked::new(heap()), Malloc) };
/// pymalloc.access().trim();
/// ```
///
/// ```compile_fail,E0599
/// # use obmalloc::{Access, Heap, KnownArenas, Locked, Pymalloc};
/// # use raw_mem::{Malloc, MmapArenas};
/// # type H = Heap<KnownArenas<MmapArenas, Malloc>, Malloc>;
/// # fn heap() -> H { Heap::new(KnownArenas::new(MmapArenas::new(), Malloc), Malloc) }
/// // SAFETY: malloc does not serve memory of the heap's arenas.
/// let pymalloc = unsafe { Pymalloc::new(Locked::new(heap()), Malloc) };
/// pymalloc.access().enter(|inside: &mut H| *inside = heap());
/// ```
///
/// Safe code cannot replace a heap inside `GilHeld` either:
///
/// ```compile_fail,E0599
/// # use obmalloc::{Access, GilHeld, Heap, KnownArenas, Pymalloc};
/// # use raw_mem::{Malloc, MmapArenas};
/// # type H = Heap<KnownArenas<MmapArenas, Malloc>, Malloc>;
/// # fn heap() -> H { Heap::new(KnownArenas::new(MmapArenas::new(), Malloc), Malloc) }
/// // SAFETY: one thread, nothing calls back, and malloc does not serve memory of the arenas.
/// let pymalloc = unsafe { Pymalloc::new(GilHeld::new(heap()), Malloc) };
/// pymalloc.access().enter(|inside: &mut H| *inside = heap());
/// ```
///
/// A type that implements only `Access`, in safe code, gets an allocator with `stats` but without
/// `malloc`:
///
/// ```
/// # use obmalloc::{Access, Blocks, Pools16K, Pymalloc, Stats};
/// # use raw_mem::{Malloc, MemAlloc};
/// # struct Fresh;
/// # impl Access for Fresh {
/// #     fn stats(&self) -> Stats { Stats::empty::<Pools16K>() }
/// #     fn contains(&self, _: usize) -> bool { false }
/// #     fn trim(&self) -> usize { 0 }
/// #     fn check_invariants(&self) {}
/// # }
/// // SAFETY: it is no heap, so it has no arenas.
/// let pymalloc = unsafe { Pymalloc::new(Fresh, Malloc) };
/// pymalloc.stats();
/// ```
///
/// ```compile_fail,E0599
/// # use obmalloc::{Access, Blocks, Pools16K, Pymalloc, Stats};
/// # use raw_mem::{Malloc, MemAlloc};
/// # struct Fresh;
/// # impl Access for Fresh {
/// #     fn stats(&self) -> Stats { Stats::empty::<Pools16K>() }
/// #     fn contains(&self, _: usize) -> bool { false }
/// #     fn trim(&self) -> usize { 0 }
/// #     fn check_invariants(&self) {}
/// # }
/// // SAFETY: it is no heap, so it has no arenas.
/// let pymalloc = unsafe { Pymalloc::new(Fresh, Malloc) };
/// pymalloc.malloc(10);
/// ```
///
/// Regression test (defect D1).
#[cfg(doctest)]
struct SafeCodeCannotEnterAHeap;

impl<H> fmt::Debug for GilHeld<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GilHeld(..)")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{sync::mpsc::channel, thread, time::Duration};

    use raw_mem::{Malloc, MemAlloc, MmapArenas};

    use super::*;
    use crate::entry::pymalloc::Pymalloc;

    type TestHeap = Heap<KnownArenas<MmapArenas, Malloc>, Malloc>;

    fn pymalloc() -> Pymalloc<Locked<TestHeap>, Malloc> {
        let heap = Heap::new(KnownArenas::new(MmapArenas::new(), Malloc), Malloc);
        // SAFETY: malloc never returns memory that lies in an arena of the heap.
        unsafe { Pymalloc::new(Locked::new(heap), Malloc) }
    }

    #[test]
    fn a_trim_unmaps_free_arenas_only() {
        let pymalloc = pymalloc();
        let block = pymalloc.malloc(100).unwrap();
        pymalloc.access().trim();
        assert_eq!(pymalloc.stats().arenas.current, 1);
        assert!(pymalloc.access().contains(block.addr().get()));
        // SAFETY: the block is live and not used again.
        unsafe { pymalloc.free(Some(block)) };
        pymalloc.access().trim();
        pymalloc.access().check_invariants();
        assert_eq!(pymalloc.stats().arenas.current, 0);
        assert!(!pymalloc.access().contains(block.addr().get()));
    }

    #[test]
    fn a_closed_heap_cannot_be_used_until_its_guard_is_dropped() {
        let pymalloc = pymalloc();
        let (sender, receiver) = channel();
        thread::scope(|scope| {
            let guard = pymalloc.access().close();
            scope.spawn(|| sender.send(pymalloc.stats().refused));
            assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
            drop(guard);
            receiver.recv_timeout(Duration::from_secs(60)).expect("the heap is unlocked");
        });
    }
}

#[cfg(feature = "std")]
pub use locked::{Locked, LockedGuard};

#[cfg(feature = "std")]
mod locked {
    use super::{Enter, fmt};

    /// A heap that is protected by a mutex.
    ///
    /// The arena source and metadata allocator must not call back into the locked heap.
    pub struct Locked<H>(sync::Mutex<H>);

    /// A guard that keeps a [`Locked`] heap locked until it is dropped. It gives no access to the
    /// heap.
    #[must_use = "the heap is unlocked when the guard is dropped"]
    pub struct LockedGuard<'a, H> {
        _lock: sync::MutexGuard<'a, H>,
    }

    impl<H> Locked<H> {
        sync::const_unless_model! {
            /// Wraps `heap` with a lock.
            pub fn new(heap: H) -> Self {
                Self(sync::Mutex::new(heap))
            }
        }

        /// Locks the heap until the guard is dropped, for example during a fork.
        ///
        /// A thread that holds the guard must not use the heap, because the call would deadlock.
        pub fn close(&self) -> LockedGuard<'_, H> {
            LockedGuard { _lock: sync::lock(&self.0) }
        }
    }

    /// A guard gives no access to its heap, so safe code cannot replace a locked heap:
    ///
    /// ```
    /// # use obmalloc::{Heap, KnownArenas, Locked};
    /// # use raw_mem::{Malloc, MmapArenas};
    /// # type H = Heap<KnownArenas<MmapArenas, Malloc>, Malloc>;
    /// # fn heap() -> H { Heap::new(KnownArenas::new(MmapArenas::new(), Malloc), Malloc) }
    /// let locked = Locked::new(heap());
    /// let mut guard = locked.close();
    /// ```
    ///
    /// ```compile_fail,E0614
    /// # use obmalloc::{Heap, KnownArenas, Locked};
    /// # use raw_mem::{Malloc, MmapArenas};
    /// # type H = Heap<KnownArenas<MmapArenas, Malloc>, Malloc>;
    /// # fn heap() -> H { Heap::new(KnownArenas::new(MmapArenas::new(), Malloc), Malloc) }
    /// let locked = Locked::new(heap());
    /// let mut guard = locked.close();
    /// std::mem::swap(&mut *guard, &mut heap());
    /// ```
    ///
    /// Regression test (defect D1).
    #[cfg(doctest)]
    struct AGuardDoesNotLendItsHeap;

    // SAFETY: the mutex owns one heap, and admits one caller at a time.
    unsafe impl<H> Enter for Locked<H> {
        type Heap = H;

        #[inline]
        fn enter<R>(&self, visit: impl FnOnce(&mut H) -> R) -> R {
            visit(&mut sync::lock(&self.0))
        }
    }

    impl<H> fmt::Debug for Locked<H> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Locked(..)")
        }
    }

    impl<H> fmt::Debug for LockedGuard<'_, H> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("LockedGuard(..)")
        }
    }
}
