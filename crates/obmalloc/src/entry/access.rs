//! Guards around a heap: one with a lock of its own, one for a lock that the caller holds.
//!
//! Blocks in use rely on the heap that they came from, so code outside of this crate must not get
//! `&mut Heap`. It could replace the heap, or call the allocator while that is inside the heap. A
//! guarded heap offers operations instead.

use core::{cell::UnsafeCell, fmt};

use raw_mem::{ArenaSource, MemAlloc};

use crate::{
    entry::claim::KnownArenas,
    geometry::Geometry,
    heap::{Heap, stats::Stats},
};

/// Operations on a guarded heap, such as [`GilHeld`] or [`Locked`].
///
/// None of these operations affects a block in use, so they are safe. No unsafe code relies on an
/// implementation of this trait.
pub trait Access {
    /// Walks the heap and returns its statistics. O(pools).
    fn stats(&self) -> Stats;

    /// Returns true if `address` lies in an arena of the heap.
    fn contains(&self, address: usize) -> bool;

    /// Unmaps the arenas that have no block in use, and what the source of arenas retains.
    fn trim(&self);

    /// Asserts every rule of the [crate's page](crate). For tests.
    ///
    /// # Panics
    ///
    /// Panics if a rule is broken. The message names the rule.
    fn check_invariants(&self);
}

/// A heap that is reached through a guard. The trait is private to the crate, so that nobody else
/// can run code while `&mut Heap` exists.
///
/// # Safety
///
/// - Each call of [`enter`](Self::enter) on one value must visit the same heap.
/// - Nothing else may borrow the heap while `visit` runs.
pub(crate) unsafe trait Enter {
    /// The guarded heap.
    type Heap;

    /// Calls `visit` with exclusive access to the heap. `visit` must not enter it again.
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

    fn trim(&self) {
        self.enter(Heap::trim);
    }

    fn check_invariants(&self) {
        self.enter(|heap| heap.check_invariants());
    }
}

/// A heap that is guarded by a lock which this type does not know, such as CPython's GIL. The
/// guard costs nothing.
pub struct GilHeld<H>(UnsafeCell<H>);

// SAFETY: no two calls run at the same time (contract of `new`).
unsafe impl<H: Send> Sync for GilHeld<H> {}

impl<H> GilHeld<H> {
    /// Wraps `heap` without a lock.
    ///
    /// # Safety
    ///
    /// As long as the value is in use, at most one call into it or into an allocator over it may run
    /// at a time. This includes calls from other threads. It also includes calls from within a call,
    /// which the heap's arena source or the allocator of its metadata could make.
    pub const unsafe fn new(heap: H) -> Self {
        Self(UnsafeCell::new(heap))
    }
}

// SAFETY: the value owns its one heap and does not lend it elsewhere. No other call runs meanwhile
// (contract of `new`).
unsafe impl<H> Enter for GilHeld<H> {
    type Heap = H;

    #[inline]
    fn enter<R>(&self, visit: impl FnOnce(&mut H) -> R) -> R {
        // SAFETY: no other reference to the heap exists (contract of `new`).
        visit(unsafe { &mut *self.0.get() })
    }
}

/// Defects D1: safe code replaced a heap through `enter`, which unmapped the blocks in use.
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
/// The same holds for a heap under a lock that the caller holds:
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
/// Defects D1: an implementation of `Access` lent another heap each time. Implementing the trait
/// does not make a type a heap that an allocator can be made of:
///
/// ```
/// # use obmalloc::{Access, Blocks, Pools16K, Pymalloc, Stats};
/// # use raw_mem::{Malloc, MemAlloc};
/// # struct Fresh;
/// # impl Access for Fresh {
/// #     fn stats(&self) -> Stats { Stats::empty::<Pools16K>() }
/// #     fn contains(&self, _: usize) -> bool { false }
/// #     fn trim(&self) {}
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
/// #     fn trim(&self) {}
/// #     fn check_invariants(&self) {}
/// # }
/// // SAFETY: it is no heap, so it has no arenas.
/// let pymalloc = unsafe { Pymalloc::new(Fresh, Malloc) };
/// pymalloc.malloc(10);
/// ```
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
        // SAFETY: malloc does not serve memory of the heap's arenas.
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

    /// A heap that is guarded by a mutex.
    ///
    /// If the heap's arena source, or the allocator of its metadata, calls back into the heap, the
    /// call deadlocks or panics.
    pub struct Locked<H>(sync::Mutex<H>);

    /// Keeps a [`Locked`] heap locked until it is dropped. The heap cannot be reached through it.
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

        /// Locks the heap until the guard is dropped, for events that must not happen while
        /// another thread is inside, such as a fork.
        ///
        /// The calling thread must not use the heap in the meantime, because it would deadlock.
        pub fn close(&self) -> LockedGuard<'_, H> {
            LockedGuard { _lock: sync::lock(&self.0) }
        }
    }

    /// Defects D1: safe code swapped a heap through the guard that keeps it locked.
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
    #[cfg(doctest)]
    struct AGuardDoesNotLendItsHeap;

    // SAFETY: the mutex owns its one heap and lends it to one caller at a time.
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
