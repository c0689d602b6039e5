//! All thread heaps over one source: where they get arenas, and how threads come by them.

use std::{
    fmt,
    ptr::{self, NonNull},
};

use obmalloc::{ArenaMap, BlockPtr, HeapTag, Stats};
use raw_mem::{ArenaSource, MemAlloc, RetainingArenas};
use sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use crate::{
    carrier, parts::Parts, registry::Registry, shared_arenas::SharedArenas, thread_heap::ThreadHeap,
};

mod takeover;

/// Keeps the shared source of arenas locked until it is dropped.
///
/// The source itself cannot be reached through it, because every heap relies on the source that
/// its arenas came from.
#[must_use = "the source is unlocked when the guard is dropped"]
pub struct SourceGuard<'a, S> {
    source: MutexGuard<'a, S>,
}

impl<S: ArenaSource> SourceGuard<'_, S> {
    /// Gives back what the source retains for later requests.
    pub fn trim(&mut self) {
        self.source.trim();
    }

    /// Returns the source, for code that gives back only what it mapped.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn source(&mut self) -> &mut S {
        &mut self.source
    }
}

impl<S: ArenaSource> SourceGuard<'_, RetainingArenas<S>> {
    /// Returns how many arenas are retained, by the source and by the heaps.
    pub fn retained(&self) -> usize {
        self.source.retained()
    }

    /// Counts at most `of_one` arenas as retained by heaps.
    pub(crate) fn limit_users_to(&mut self, of_one: usize) {
        self.source.limit_users_to(of_one);
    }
}

impl<S> fmt::Debug for SourceGuard<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SourceGuard(..)")
    }
}

/// defects D2: the source was replaced through its guard, which unmapped arenas in use.
///
/// ```
/// # use obmalloc::Pools16K;
/// # use raw_mem::{Malloc, MmapArenas};
/// # use thread_heap::Heaps;
/// static HEAPS: Heaps<(MmapArenas, Malloc, Pools16K)> = Heaps::new(MmapArenas::new(), Malloc);
/// HEAPS.close_source().trim();
/// ```
///
/// ```compile_fail,E0614
/// # use obmalloc::Pools16K;
/// # use raw_mem::{Malloc, MmapArenas};
/// # use thread_heap::Heaps;
/// static HEAPS: Heaps<(MmapArenas, Malloc, Pools16K)> = Heaps::new(MmapArenas::new(), Malloc);
/// *HEAPS.close_source() = MmapArenas::new();
/// ```
#[cfg(doctest)]
struct AGuardDoesNotLendItsSource;

/// The thread heaps over one source of arenas.
///
/// It lives forever, as a static or leaked, because its heaps do: a block of theirs may outlive
/// every thread.
///
/// ```
/// use obmalloc::{Pools16K, SizeClass};
/// use raw_mem::{Malloc, MmapArenas};
/// use thread_heap::Heaps;
///
/// static HEAPS: Heaps<(MmapArenas, Malloc, Pools16K)> = Heaps::new(MmapArenas::new(), Malloc);
///
/// let heap = HEAPS.open().expect("there is memory");
/// // SAFETY: this thread opened the heap, so it is the owner.
/// let block = unsafe { heap.alloc(SizeClass::of(100).unwrap()) }.expect("there is memory");
/// let start = block.into_start().as_ptr() as usize;
/// std::thread::spawn(move || {
///     let start = std::ptr::NonNull::new(std::ptr::with_exposed_provenance_mut(start)).unwrap();
///     // SAFETY: the block was given to this thread, which frees it.
///     unsafe { HEAPS.free_remote(obmalloc::BlockPtr::from_start(start)) };
/// })
/// .join()
/// .unwrap();
/// // SAFETY: this thread is the owner, and is done with the heap.
/// unsafe { HEAPS.close(heap) };
/// ```
pub struct Heaps<P: Parts> {
    source: Mutex<P::Source>,
    lower: P::Lower,
    map: ArenaMap<P::Geometry>,
    registry: Registry<ThreadHeap<P>>,
    /// Held by the thread that takes inboxes over.
    takeovers: Mutex<()>,
    /// The system refused to take pages back. It is not asked again.
    purges_are_refused: AtomicBool,
}

/// What heaps have in use, all together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeapsStats {
    /// Of the heaps that could be walked.
    pub total: Stats,
    /// How many were walked.
    pub walked: usize,
    /// How many have another thread as their owner, who may be inside: they are not in the total.
    pub elsewhere: usize,
}

impl<P: Parts> Heaps<P> {
    sync::const_unless_model! {
        /// No heaps yet, over the arenas of `source`; records come from `lower`.
        pub fn new(source: P::Source, lower: P::Lower) -> Self {
            Self {
                source: Mutex::new(source),
                lower,
                map: ArenaMap::new(),
                registry: Registry::new(),
                takeovers: Mutex::new(()),
                purges_are_refused: AtomicBool::new(false),
            }
        }
    }

    /// A heap for the calling thread, which owns it until it [closes](Self::close) it: an
    /// abandoned one, or a new one. `None` when the layer below has no suitable memory for one.
    ///
    /// O(heaps): at most as many as there ever were threads at the same time.
    pub fn open(&'static self) -> Option<&'static ThreadHeap<P>> {
        self.registry.iter().find(|heap| heap.inbox.adopt()).or_else(|| self.make())
    }

    /// Opens a heap for the thread with the number `thread`: the first registered heap that is
    /// abandoned or that a thread with this number left open, or else a new one. Returns `None` as
    /// [`open`](Self::open) does.
    ///
    /// # Safety
    ///
    /// Every heap that has this number (see [`ThreadHeap::thread`]) was owned by a thread that has
    /// ended, outside of any call into the heap.
    pub(crate) unsafe fn open_as(&'static self, thread: usize) -> Option<&'static ThreadHeap<P>> {
        // Relaxed is enough: the C library makes the end of the thread happen before this thread
        // uses the same memory for its own thread-locals, whose address is the number.
        let is_left = |heap: &ThreadHeap<P>| heap.thread().load(Relaxed) == thread;
        let found = self.registry.iter().find(|heap| is_left(heap) || heap.inbox.adopt());
        found.or_else(|| self.make())
    }

    /// Removes the number from every heap that has one other than `thread`.
    pub(crate) fn forget_threads_but(&self, thread: usize) {
        for heap in self.registry.iter().filter(|heap| heap.thread().load(Relaxed) != thread) {
            heap.thread().store(0, Relaxed);
        }
    }

    /// Leaves `heap`, sending what waits in its outbox; it gives back what arenas it can.
    ///
    /// # Safety
    ///
    /// The caller is the owner, and is so no longer.
    pub unsafe fn close(&self, heap: &ThreadHeap<P>) {
        // SAFETY: the caller is still the owner.
        unsafe { heap.send_outbox() };
        // SAFETY: the caller's promise.
        unsafe { heap.abandon() };
    }

    /// Frees a block from a thread that does not own its heap and has no heap of its own, or no
    /// patience: it is sent at once.
    ///
    /// # Safety
    ///
    /// The block came from one of these heaps, and the caller gives it up. The caller does not own
    /// that heap.
    // Apart from its callers, whose common case then needs no stack frame.
    #[inline(never)]
    pub unsafe fn free_remote(&self, block: BlockPtr) {
        let start = block.into_start();
        // SAFETY: the block is in use, in one of these heaps.
        let receiver = unsafe { ThreadHeap::<P>::of_block(start) };
        // SAFETY: the caller holds the block.
        let size = unsafe { ThreadHeap::<P>::size_of_block(start) };
        // SAFETY: the caller gives the block up, which is as large as the geometry's alignment.
        self.send(receiver, unsafe { carrier::alone(start, size) });
    }

    /// Counts what is in use in the caller's heap, if it has one, and in those that nobody owns, by
    /// walking them. O(heaps + pools).
    ///
    /// # Safety
    ///
    /// The caller is the owner of `owned`.
    pub unsafe fn stats(&self, owned: Option<&ThreadHeap<P>>) -> HeapsStats {
        // SAFETY: the caller's promise.
        unsafe { self.stats_with(|heap| owned.is_some_and(|owned| ptr::eq(owned, heap))) }
    }

    /// Counts what is in use in the heaps that the caller owns, which `is_owned` tells, and in
    /// those that nobody owns. O(heaps + pools).
    ///
    /// # Safety
    ///
    /// The caller is the owner of every heap for which `is_owned` returns true.
    pub(crate) unsafe fn stats_with(
        &self,
        is_owned: impl Fn(&ThreadHeap<P>) -> bool,
    ) -> HeapsStats {
        let total = Stats::empty::<P::Geometry>().with_map(&self.map);
        let mut stats = HeapsStats { total, walked: 0, elsewhere: 0 };
        for heap in self.registry.iter() {
            let is_owned = is_owned(heap);
            if !is_owned && !heap.inbox.adopt() {
                stats.elsewhere += 1;
                continue;
            }
            // SAFETY: the caller is the owner: it said so, or has just adopted the heap.
            stats.total += &unsafe { heap.stats() };
            stats.walked += 1;
            if !is_owned {
                // SAFETY: it was adopted above, and is let go of here.
                unsafe { heap.abandon() };
            }
        }
        stats
    }

    /// `address` is in an arena of one of these heaps. Reads the arena map, without a lock.
    #[inline]
    pub fn holds(&self, address: usize) -> bool {
        self.map.contains(address)
    }

    /// Closes the source of arenas until the guard is dropped. A fork must happen under it, or
    /// the child may find it closed forever.
    pub fn close_source(&self) -> SourceGuard<'_, P::Source> {
        SourceGuard { source: self.source() }
    }

    /// Locks the source of arenas.
    pub(crate) fn source(&self) -> MutexGuard<'_, P::Source> {
        sync::lock(&self.source)
    }

    /// Counts the arenas that heaps retain whose owner a forked child still has.
    ///
    /// # Safety
    ///
    /// No other thread is inside such a heap: the caller is the child of a fork.
    pub(crate) unsafe fn retained_arenas_of_survivors(&self) -> usize {
        let survivors = self.registry.iter().filter(|heap| heap.outlives_threads().load(Relaxed));
        // SAFETY: the caller's promise.
        survivors.map(|heap| unsafe { heap.retained_arenas() }).sum()
    }

    /// Which arenas these heaps have.
    pub(crate) fn map(&self) -> &ArenaMap<P::Geometry> {
        &self.map
    }

    /// Where records come from.
    pub(crate) fn lower(&self) -> &P::Lower {
        &self.lower
    }

    /// Makes a heap that the caller owns. Returns `None` if the layer below has no memory for it, or
    /// aligns its blocks to less than the heap needs.
    fn make(&'static self) -> Option<&'static ThreadHeap<P>> {
        let block = self.lower.malloc(size_of::<ThreadHeap<P>>())?;
        let place = block.cast::<ThreadHeap<P>>();
        if !place.is_aligned() {
            // SAFETY: the block came from `lower` just now, and nobody uses it.
            unsafe { self.lower.free(Some(block)) };
            return None;
        }
        let tag = HeapTag(place.as_ptr().cast_const().cast());
        let heap = ThreadHeap::new(SharedArenas::of(self), self.lower.clone(), tag);
        // SAFETY: the block is ours, and has the size and the alignment of a heap.
        unsafe { place.write(heap) };
        // SAFETY: it was written just now, is never freed, and only shared from here on.
        let heap: &'static ThreadHeap<P> = unsafe { NonNull::as_ref(&place) };
        self.registry.add(heap);
        Some(heap)
    }
}

impl<P: Parts> fmt::Debug for Heaps<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.registry.iter()).finish()
    }
}

#[cfg(test)]
mod models;
