//! How an allocator reaches its heap: under a lock of its own, or under one that the caller holds.
//!
//! Blocks in use rely on the heap that they came from, so no code outside of this crate may get
//! `&mut Heap`: it could replace the heap, or call the allocator again while it is inside. A
//! guarded heap offers operations instead.

use core::{cell::UnsafeCell, fmt};

use raw_mem::{ArenaSource, MemAlloc};

use crate::{claim::KnownArenas, geometry::Geometry, heap::Heap, stats::Stats};

/// What can be asked of a guarded heap, such as [`GilHeld`] or [`Locked`].
///
/// None of these operations affects a block in use, so they are safe. No unsafe code relies on an
/// implementation of this trait.
pub trait Access {
    /// Counts what the heap has in use, by walking it. O(pools).
    fn stats(&self) -> Stats;

    /// Returns true if `address` lies in an arena of the heap.
    fn holds(&self, address: usize) -> bool;

    /// Gives back all memory that is not in use, including what the source of arenas retains.
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
/// - Each call of [`enter`](Self::enter) on one value visits the same heap.
/// - The heap is borrowed by nobody else while `visit` runs.
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

    fn holds(&self, address: usize) -> bool {
        self.enter(|heap| heap.source().holds(address))
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

// SAFETY: the caller of `new` promised that no two calls run at the same time.
unsafe impl<H: Send> Sync for GilHeld<H> {}

impl<H> GilHeld<H> {
    /// Wraps `heap` without a lock.
    ///
    /// # Safety
    ///
    /// As long as the value is in use, at most one call into it or into an allocator over it may
    /// run at a time. This includes:
    ///
    /// - calls from other threads, and
    /// - calls from within a call, which the heap's arena source or the allocator of its metadata
    ///   could make.
    pub const unsafe fn new(heap: H) -> Self {
        Self(UnsafeCell::new(heap))
    }
}

// SAFETY: the value owns its one heap and never lends it elsewhere. The caller of `new` promised
// that no other call runs meanwhile.
unsafe impl<H> Enter for GilHeld<H> {
    type Heap = H;

    #[inline]
    fn enter<R>(&self, visit: impl FnOnce(&mut H) -> R) -> R {
        // SAFETY: no other reference to the heap exists (contract of `new`).
        visit(unsafe { &mut *self.0.get() })
    }
}

/// defects D1: a heap was replaced through `enter`, and its blocks were unmapped with it.
///
/// ```
/// # use obmalloc::{Access, Heap, KnownArenas, Locked, Pools16K, Pymalloc};
/// # use raw_mem::{Malloc, MmapArenas};
/// # type H = Heap<KnownArenas<MmapArenas, Malloc, Pools16K>, Malloc, Pools16K>;
/// # fn heap() -> H { Heap::new(KnownArenas::new(MmapArenas::new(), Malloc), Malloc) }
/// // SAFETY: malloc does not serve memory of the heap's arenas.
/// let pymalloc = unsafe { Pymalloc::new(Locked::new(heap()), Malloc) };
/// pymalloc.access().trim();
/// ```
///
/// ```compile_fail,E0599
/// # use obmalloc::{Access, Heap, KnownArenas, Locked, Pools16K, Pymalloc};
/// # use raw_mem::{Malloc, MmapArenas};
/// # type H = Heap<KnownArenas<MmapArenas, Malloc, Pools16K>, Malloc, Pools16K>;
/// # fn heap() -> H { Heap::new(KnownArenas::new(MmapArenas::new(), Malloc), Malloc) }
/// // SAFETY: malloc does not serve memory of the heap's arenas.
/// let pymalloc = unsafe { Pymalloc::new(Locked::new(heap()), Malloc) };
/// pymalloc.access().enter(|inside: &mut H| *inside = heap());
/// ```
///
/// The same holds for a heap under a lock that the caller holds:
///
/// ```compile_fail,E0599
/// # use obmalloc::{Access, GilHeld, Heap, KnownArenas, Pools16K, Pymalloc};
/// # use raw_mem::{Malloc, MmapArenas};
/// # type H = Heap<KnownArenas<MmapArenas, Malloc, Pools16K>, Malloc, Pools16K>;
/// # fn heap() -> H { Heap::new(KnownArenas::new(MmapArenas::new(), Malloc), Malloc) }
/// // SAFETY: one thread, nothing calls back, and malloc does not serve memory of the arenas.
/// let pymalloc = unsafe { Pymalloc::new(GilHeld::new(heap()), Malloc) };
/// pymalloc.access().enter(|inside: &mut H| *inside = heap());
/// ```
///
/// defects D1: an implementation of `Access` lent another heap each time. A type that has the
/// operations of the trait is no heap that an allocator can be made of:
///
/// ```
/// # use obmalloc::{Access, Blocks, Pools16K, Pymalloc, Stats};
/// # use raw_mem::{Malloc, MemAlloc};
/// # struct Fresh;
/// # impl Access for Fresh {
/// #     fn stats(&self) -> Stats { Stats::empty::<Pools16K>() }
/// #     fn holds(&self, _: usize) -> bool { false }
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
/// #     fn holds(&self, _: usize) -> bool { false }
/// #     fn trim(&self) {}
/// #     fn check_invariants(&self) {}
/// # }
/// // SAFETY: it is no heap, so it has no arenas.
/// let pymalloc = unsafe { Pymalloc::new(Fresh, Malloc) };
/// pymalloc.malloc(10);
/// ```
#[cfg(doctest)]
struct NobodyElseEntersAHeap;

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
    use crate::{Pools16K, Pymalloc};

    type TestHeap = Heap<KnownArenas<MmapArenas, Malloc, Pools16K>, Malloc, Pools16K>;

    fn pymalloc() -> Pymalloc<Locked<TestHeap>, Malloc> {
        let heap = Heap::new(KnownArenas::new(MmapArenas::new(), Malloc), Malloc);
        // SAFETY: malloc does not serve memory of the heap's arenas.
        unsafe { Pymalloc::new(Locked::new(heap), Malloc) }
    }

    #[test]
    fn a_trim_gives_the_empty_arena_back_and_leaves_blocks_alone() {
        let pymalloc = pymalloc();
        let block = pymalloc.malloc(100).unwrap();
        pymalloc.access().trim();
        assert_eq!(pymalloc.stats().arenas.current, 1);
        assert!(pymalloc.access().holds(block.addr().get()));
        // SAFETY: the block is live and not used again.
        unsafe { pymalloc.free(Some(block)) };
        pymalloc.access().trim();
        pymalloc.access().check_invariants();
        assert_eq!(pymalloc.stats().arenas.current, 0);
        assert!(!pymalloc.access().holds(block.addr().get()));
    }

    #[test]
    fn a_closed_heap_is_used_by_nobody_until_its_guard_is_dropped() {
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

    /// defects D1: a heap was swapped through the guard that keeps it locked.
    ///
    /// ```
    /// # use obmalloc::{Heap, KnownArenas, Locked, Pools16K};
    /// # use raw_mem::{Malloc, MmapArenas};
    /// # type H = Heap<KnownArenas<MmapArenas, Malloc, Pools16K>, Malloc, Pools16K>;
    /// # fn heap() -> H { Heap::new(KnownArenas::new(MmapArenas::new(), Malloc), Malloc) }
    /// let locked = Locked::new(heap());
    /// let mut guard = locked.close();
    /// ```
    ///
    /// ```compile_fail,E0614
    /// # use obmalloc::{Heap, KnownArenas, Locked, Pools16K};
    /// # use raw_mem::{Malloc, MmapArenas};
    /// # type H = Heap<KnownArenas<MmapArenas, Malloc, Pools16K>, Malloc, Pools16K>;
    /// # fn heap() -> H { Heap::new(KnownArenas::new(MmapArenas::new(), Malloc), Malloc) }
    /// let locked = Locked::new(heap());
    /// let mut guard = locked.close();
    /// std::mem::swap(&mut *guard, &mut heap());
    /// ```
    #[cfg(doctest)]
    struct AGuardDoesNotLendItsHeap;

    // SAFETY: the mutex owns its one heap, and lends it to one caller at a time.
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
