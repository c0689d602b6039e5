//! Threads that share heaps. The heaps are a family of the test's own, or those of the process.

use std::time::Duration;

use obmalloc::{BlockPtr, Blocks, Geometry, SizeClass};
use raw_mem::{Malloc, MemAlloc, MmapArenas, RetainingArenas};
use testkit::{
    failing::{FailingArenas, Faults},
    place::ArenaLog,
};
use thread_heap::{Heaps, Owner, PerThread, ThreadGeometry, ThreadMalloc};

use crate::block::Block;

/// The size of the largest class.
const LARGEST: usize = ThreadGeometry::SIZES.arena_threshold;

pub(crate) type Parts = (FailingArenas<RetainingArenas<MmapArenas>>, Malloc, ThreadGeometry);

pub(crate) trait Team: Copy + Send + 'static {
    type Member: Member;

    fn join(self) -> Self::Member;

    /// Panics if an arena is mapped. The team must have no members and no blocks in use.
    fn assert_nothing_is_mapped(self);
}

pub(crate) trait Member {
    fn alloc(&mut self, class: SizeClass<ThreadGeometry>) -> BlockPtr;

    /// Returns a block of `size` bytes with known contents.
    ///
    /// A member that cannot serve large blocks returns one of the largest class instead.
    #[allow(dead_code, reason = "not every test needs it")]
    fn block(&mut self, size: usize, seed: u64) -> Block {
        let class = SizeClass::of(size.min(LARGEST)).expect("an arena serves it");
        Block::fill(self.alloc(class), class, seed)
    }

    /// Frees a block of any member.
    ///
    /// # Safety
    ///
    /// - The block must have come from a member of the same team.
    /// - The block must not be used afterwards.
    unsafe fn free(&mut self, block: BlockPtr);

    #[allow(dead_code, reason = "not every test needs it")]
    fn flush(&mut self);
}

#[derive(Clone, Copy)]
pub(crate) struct Family {
    pub(crate) heaps: &'static Heaps<Parts>,
    pub(crate) arenas: &'static ArenaLog,
}

impl Family {
    pub(crate) fn new() -> Self {
        Self::over(Duration::ZERO)
    }

    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn that_retains_arenas() -> Self {
        Self::over(Duration::from_secs(3600))
    }

    fn over(decay: Duration) -> Self {
        let arenas: &ArenaLog = Box::leak(Box::default());
        let retaining = RetainingArenas::with_decay(MmapArenas::new(), decay);
        let source = FailingArenas::new(retaining, Faults::default(), arenas.clone());
        Self { heaps: Box::leak(Box::new(Heaps::new(source, Malloc))), arenas }
    }
}

impl Team for Family {
    type Member = Owner<Parts>;

    fn join(self) -> Owner<Parts> {
        self.heaps.open().expect("there is memory")
    }

    fn assert_nothing_is_mapped(self) {
        assert!(self.arenas.ever() > 0, "nothing was ever allocated");
        assert_eq!(self.arenas.mapped(), 0, "arenas are still mapped, of {}", self.arenas.ever());
    }
}

impl Member for Owner<Parts> {
    fn alloc(&mut self, class: SizeClass<ThreadGeometry>) -> BlockPtr {
        self.alloc_listed(class).or_else(|| Owner::alloc(self, class)).expect("there is memory")
    }

    unsafe fn free(&mut self, block: BlockPtr) {
        // SAFETY: the block came from the same family, and is not used again (contract).
        unsafe { Owner::free(self, block) };
    }

    fn flush(&mut self) {
        Owner::flush(self);
    }
}

#[derive(Clone, Copy)]
pub(crate) struct OfTheProcess;

impl Team for OfTheProcess {
    type Member = PerThread;

    fn join(self) -> PerThread {
        PerThread
    }

    fn assert_nothing_is_mapped(self) {
        // Other tests use the same heaps, so their arenas may be mapped.
        PerThread.flush();
    }
}

impl Member for PerThread {
    fn alloc(&mut self, class: SizeClass<ThreadGeometry>) -> BlockPtr {
        self.alloc_listed(class).or_else(|| Blocks::alloc(&*self, class)).expect("there is memory")
    }

    fn block(&mut self, size: usize, seed: u64) -> Block {
        let start = ThreadMalloc.malloc(size).expect("there is memory");
        // SAFETY: the block is in use.
        let size = unsafe { ThreadMalloc.usable_size(start) };
        // SAFETY: the block is new, and has this many bytes.
        unsafe { Block::fill_bytes(BlockPtr::from_start(start), size, seed) }
    }

    unsafe fn free(&mut self, block: BlockPtr) {
        // SAFETY: the block is in use.
        let is_large = unsafe { ThreadMalloc.usable_size(block.start()) } > LARGEST;
        // For a block of a class, both functions are correct, so we test both.
        if is_large || (block.start().addr().get() / 64).is_multiple_of(2) {
            // SAFETY: the block came from the process's heaps, and is not used again (contract).
            unsafe { ThreadMalloc.free(Some(block.into_start())) };
        } else {
            // SAFETY: as above, and the block has a class.
            unsafe { Blocks::free(&*self, block) };
        }
    }

    fn flush(&mut self) {
        Self::flush(*self);
    }
}
