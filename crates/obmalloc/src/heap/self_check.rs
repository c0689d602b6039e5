//! Checks that a heap performs on itself in builds with debug assertions.
//!
//! - The heap overwrites the beginning of each freed block, so a program that still uses the block
//!   is likely to fail. Large blocks and blocks of less than two words are not overwritten.
//! - The heap detects most double frees. It misses a double free if the freed memory has since been
//!   reused, uncarved (see `arena::uncarved`) or returned to the arena source. The heap may also
//!   miss a double free if the program has written to the freed block, or if the first free still
//!   waits in a queue of remote frees.
//! - From time to time, the heap checks the consistency of its data structures. A check of a larger
//!   heap takes longer, so a larger heap is checked less often.
//!
//! In other builds, these checks take neither time nor memory.

#![cfg_attr(not(test), forbid(unsafe_code))]

use core::{cell::Cell, fmt, ptr::NonNull};

use crate::{
    geometry::{Geometry, size_class::SizeClass},
    pool::{PoolPtr, State, block::BlockPtr},
};

/// True if heaps check themselves. Loom checks the models instead, and Miri finds such errors
/// itself.
pub(crate) const IS_ON: bool = cfg!(debug_assertions) && !cfg!(miri) && !sync::IS_MODEL;

/// The largest number of bytes of a block that are overwritten.
const POISONED: usize = 512;

/// The smallest number of slow paths between two checks.
const INTERVAL: usize = 1024;

/// Counts the slow paths until the next check. Takes no memory if heaps do not check themselves.
#[derive(Debug)]
pub(crate) struct SelfCheck([Cell<usize>; IS_ON as usize]);

impl SelfCheck {
    pub(crate) const fn new() -> Self {
        Self([const { Cell::new(INTERVAL) }; IS_ON as usize])
    }

    /// Returns true in every n-th call, where n depends on `units`, the number of units in all
    /// arenas.
    pub(crate) fn is_due(&self, units: usize) -> bool {
        let Some(left) = self.0.first() else { return false };
        left.set(left.get() - 1);
        let is_due = left.get() == 0;
        if is_due {
            // A check takes quadratic time, because it visits the pools of a class once for each of
            // them.
            left.set(INTERVAL.max(units * units / 16));
        }
        is_due
    }
}

/// Ends the process if a panic passes through it, because an allocator must not unwind.
pub(crate) struct NoUnwinding;

impl Drop for NoUnwinding {
    fn drop(&mut self) {
        fail(format_args!("a heap broke one of its rules"));
    }
}

/// Records that a block of `class` has left the free list of its pool.
#[inline]
pub(crate) fn allocated<G: Geometry>(class: SizeClass<G>, block: Option<&BlockPtr>) {
    if IS_ON
        && has_two_words(class)
        && let Some(block) = block
    {
        block.unpoison();
    }
}

/// Records that a block for a request of `size` bytes has left the free list of its pool.
#[inline]
pub(crate) fn allocated_for<G: Geometry>(size: usize, block: Option<&BlockPtr>) {
    if IS_ON && let Some(class) = SizeClass::<G>::of(size) {
        allocated(class, block);
    }
}

/// Checks that `block` is in use, and overwrites it. The block must belong to `pool`.
#[inline]
pub(crate) fn freeing<G: Geometry>(pool: PoolPtr, block: &BlockPtr) {
    if !IS_ON {
        return;
    }
    let header = pool.header();
    let Some(class) = header.class::<G>() else {
        // When a pool is freed, all of its units except the first one lose their class. The unit in
        // which `block` begins has no class, so the pool of `block` has already been freed.
        let start = block.start();
        fail(format_args!("the block at {start:p} was freed twice"));
    };
    let is_free = matches!(header.state(), State::Uncarved | State::Free);
    let may_be_listed = !class.is_linked() || has_two_words(class) && block.is_poisoned();
    if is_free || (may_be_listed && is_listed::<G>(pool, block.start())) {
        fail_freed_twice(block.start(), class.block_size());
    }
    if has_two_words(class) {
        block.poison(class.block_size().min(POISONED));
    }
}

#[cold]
pub(crate) fn fail_freed_twice(start: NonNull<u8>, size: usize) -> ! {
    fail(format_args!("the block of {size} bytes at {start:p} was freed twice"))
}

/// Returns true if blocks have room for a link and for a word that shows whether they are free.
fn has_two_words<G: Geometry>(class: SizeClass<G>) -> bool {
    class.block_size() >= 2 * size_of::<usize>()
}

fn is_listed<G: Geometry>(pool: PoolPtr, start: NonNull<u8>) -> bool {
    pool.free_blocks::<G>().any(|free| free == start)
}

#[cfg(feature = "std")]
#[cold]
fn fail(why: fmt::Arguments<'_>) -> ! {
    raw_mem::abort_with(why)
}

/// Without the standard library, a panic is the only way to end the process.
#[cfg(not(feature = "std"))]
#[cold]
fn fail(why: fmt::Arguments<'_>) -> ! {
    panic!("{why}")
}

#[cfg(all(test, debug_assertions, not(miri), not(loom)))]
mod tests {
    use std::vec::Vec;

    use raw_mem::{Malloc, MmapArenas};

    use super::*;
    use crate::heap::Heap;

    #[test]
    fn a_freed_block_is_overwritten_up_to_the_limit() {
        let mut heap = Heap::new(MmapArenas::new(), Malloc);
        let class = SizeClass::of(48).unwrap();
        let start = heap.alloc(class).unwrap().into_start();
        // Another block keeps the pool in use.
        let _other = heap.alloc(class);
        // SAFETY: the block has 48 bytes, and its memory stays mapped after it is freed.
        unsafe {
            start.write_bytes(7, 48);
            heap.free(BlockPtr::from_start(start));
            assert!((8..48).all(|at| start.add(at).read() == 0xDD));
        }
        let again = heap.alloc(class).unwrap();
        assert!(again.start() == start && !again.is_poisoned());
    }

    #[test]
    fn a_check_is_due_after_some_slow_paths_and_later_in_a_larger_heap() {
        let checks = |units| {
            let check = SelfCheck::new();
            (0..100 * INTERVAL).filter(|_| check.is_due(units)).count()
        };
        assert_eq!(checks(64), 100);
        assert_eq!(checks(640), 4, "once, and then every 25,600 slow paths");
    }

    #[test]
    fn a_program_that_frees_its_blocks_once_is_not_reported() {
        let mut heap = Heap::new(MmapArenas::new(), Malloc);
        for size in [1, 16, 100, 512].repeat(50) {
            let class = SizeClass::of(size).unwrap();
            // Blocks that the program never writes to look like freed blocks.
            let blocks: Vec<_> = (0..300).map(|_| heap.alloc(class).unwrap()).collect();
            for block in blocks {
                // SAFETY: the block came from this heap.
                unsafe { heap.free(block) };
            }
        }
    }
}
