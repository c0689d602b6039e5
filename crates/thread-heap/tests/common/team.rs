//! Threads that share heaps, so that a test runs on both kinds: heaps that are held by hand, over
//! a source whose arenas are counted, and the process's own.

use std::time::Duration;

use obmalloc::{BlockPtr, Blocks, SizeClass};
use raw_mem::{Malloc, MmapArenas, RetainingArenas};
use testkit::{
    failing::{FailingArenas, Faults},
    place::ArenaLog,
};
use thread_heap::{Heaps, PerThread, ThreadGeometry, ThreadHeap};

/// What heaps that are held by hand are made of.
pub(crate) type Parts = (FailingArenas<RetainingArenas<MmapArenas>>, Malloc, ThreadGeometry);

/// Heaps that threads come by.
pub(crate) trait Team: Copy + Send + 'static {
    /// A thread's way to its heap.
    type Member: Member;

    /// A heap for the calling thread, until the member is dropped.
    fn join(self) -> Self::Member;

    /// Panics if an arena is left. To be called when nobody is a member and no block is in use.
    fn nothing_is_left(self);
}

/// A thread's way to its heap.
pub(crate) trait Member {
    /// A block of `class`.
    fn alloc(&self, class: SizeClass<ThreadGeometry>) -> BlockPtr;

    /// Frees a block of any member.
    ///
    /// # Safety
    ///
    /// The block came from a member of the same team, and is given up.
    unsafe fn free(&self, block: BlockPtr);

    /// Flushes the member's heap, which takes over the inboxes of the others.
    #[allow(dead_code, reason = "not every test needs it")]
    fn flush(&self);
}

/// Heaps that are held by hand.
#[derive(Clone, Copy)]
pub(crate) struct ByHand {
    pub(crate) heaps: &'static Heaps<Parts>,
    pub(crate) arenas: &'static ArenaLog,
}

impl ByHand {
    /// Heaps that keep no arena without a block in use but their last.
    pub(crate) fn new() -> Self {
        Self::over(Duration::ZERO)
    }

    /// Heaps that keep arenas while their threads are there.
    #[allow(dead_code, reason = "not every test needs them")]
    pub(crate) fn that_keep_arenas() -> Self {
        Self::over(Duration::from_secs(3600))
    }

    fn over(patience: Duration) -> Self {
        let arenas: &ArenaLog = Box::leak(Box::default());
        let warm = RetainingArenas::with_decay(MmapArenas::new(), patience);
        let source = FailingArenas::new(warm, Faults::default(), arenas.clone());
        Self { heaps: Box::leak(Box::new(Heaps::new(source, Malloc))), arenas }
    }
}

impl Team for ByHand {
    type Member = Holder;

    fn join(self) -> Holder {
        Holder { heaps: self.heaps, heap: self.heaps.open().expect("there is memory") }
    }

    fn nothing_is_left(self) {
        assert!(self.arenas.ever() > 0, "nothing was ever allocated");
        assert_eq!(self.arenas.mapped(), 0, "arenas are left, of {}", self.arenas.ever());
    }
}

/// Who holds a heap.
pub(crate) struct Holder {
    heaps: &'static Heaps<Parts>,
    pub(crate) heap: &'static ThreadHeap<Parts>,
}

impl Member for Holder {
    fn alloc(&self, class: SizeClass<ThreadGeometry>) -> BlockPtr {
        // SAFETY: the heap was opened for this holder, which is not given to other threads.
        unsafe { self.heap.alloc_listed(class).or_else(|| self.heap.alloc(class)) }
            .expect("there is memory")
    }

    unsafe fn free(&self, block: BlockPtr) {
        // SAFETY: as above; the block is of this team, and given up.
        unsafe { self.heap.free_any(block) };
    }

    fn flush(&self) {
        // SAFETY: as above.
        unsafe { self.heap.flush() };
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // SAFETY: the holder opened the heap, and is gone.
        unsafe { self.heaps.close(self.heap) };
    }
}

/// The process's heaps.
#[derive(Clone, Copy)]
pub(crate) struct OfTheProcess;

impl Team for OfTheProcess {
    type Member = PerThread;

    fn join(self) -> PerThread {
        PerThread
    }

    fn nothing_is_left(self) {
        // Other tests use the same heaps, so only the calling thread's is known to be empty.
        PerThread.flush();
    }
}

impl Member for PerThread {
    fn alloc(&self, class: SizeClass<ThreadGeometry>) -> BlockPtr {
        self.alloc_listed(class).or_else(|| Blocks::alloc(self, class)).expect("there is memory")
    }

    unsafe fn free(&self, block: BlockPtr) {
        // SAFETY: the caller's promise.
        unsafe { Blocks::free(self, block) };
    }

    fn flush(&self) {
        Self::flush(*self);
    }
}
