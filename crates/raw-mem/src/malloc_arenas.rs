//! A source that allocates each arena from a [`MemAlloc`], as CPython did up to version 2.5.

use core::{num::NonZero, ptr::NonNull};

use crate::{ArenaSize, ArenaSource, MapError, MemAlloc, align_up};

/// The size of the word before an arena, which holds the address of the arena's block.
const START: usize = size_of::<NonNull<u8>>();

/// A source that allocates each arena from a lower allocator.
///
/// An arena must be aligned to its own size, but the lower allocator guarantees an alignment of at
/// most 16 bytes. For each arena, we therefore allocate a block of more than twice the arena's
/// size, which always contains an aligned arena. The rest of the block is not used.
#[derive(Clone, Copy, Debug, Default)]
pub struct MallocArenas<A>(A);

impl<A: MemAlloc> MallocArenas<A> {
    /// Creates a source that allocates its arenas from `lower`.
    pub const fn new(lower: A) -> Self {
        Self(lower)
    }
}

// SAFETY: an arena is a part of a live block that nothing else uses. The block has more than twice
// the arena's size, so it contains the aligned arena.
unsafe impl<A: MemAlloc> ArenaSource for MallocArenas<A> {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        let block = self.0.malloc(START + 2 * size.bytes()).ok_or(MapError::Exhausted { size })?;
        let aligned = align_up(block.addr().get() + START, size.bytes()).and_then(NonZero::new);
        // The fallback is never used, because the rounded address lies inside the block.
        let arena = block.map_addr(|start| aligned.unwrap_or(start));
        // SAFETY: `START` bytes of the block precede the arena, which is aligned for a pointer.
        unsafe { arena.cast::<NonNull<u8>>().sub(1).write(block) };
        Ok(arena)
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, _size: ArenaSize) {
        // SAFETY: `map` stored the address of the block in the word before the arena.
        let block = unsafe { arena.cast::<NonNull<u8>>().sub(1).read() };
        // SAFETY: `map` allocated the block, and its arena is unused (contract of `unmap`).
        unsafe { self.0.free(Some(block)) }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use core::cell::Cell;

    use super::*;
    use crate::{Malloc, NoAlloc};

    #[test]
    fn arenas_from_malloc_are_aligned_and_whole() {
        let size = ArenaSize::new(1 << 18).unwrap();
        let mut source = MallocArenas::new(Malloc);
        let arenas: Vec<_> = (0..20).map(|_| source.map(size).unwrap()).collect();
        for arena in &arenas {
            assert_eq!(arena.addr().get() % size.bytes(), 0);
            // SAFETY: the arena is mapped, and only this test uses it.
            unsafe { arena.write_bytes(0xff, size.bytes()) };
        }
        for arena in arenas {
            // SAFETY: the arena came from this source and is not used again.
            unsafe { source.unmap(arena, size) };
        }
    }

    /// An allocator that remembers the block that it returned last, until the block is freed.
    #[derive(Default)]
    struct Watched(Cell<Option<(usize, usize)>>);

    // SAFETY: every block comes from malloc.
    unsafe impl MemAlloc for Watched {
        fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
            let block = Malloc.malloc(size)?;
            self.0.set(Some((block.addr().get(), size)));
            Some(block)
        }

        fn calloc(&self, _count: usize, _size: usize) -> Option<NonNull<u8>> {
            None
        }

        unsafe fn realloc(&self, _: Option<NonNull<u8>>, _: usize) -> Option<NonNull<u8>> {
            None
        }

        unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
            let (start, _) = self.0.take().unwrap();
            assert_eq!(ptr.map(|ptr| ptr.addr().get()), Some(start));
            // SAFETY: `ptr` is null or a live block of malloc (contract of this function).
            unsafe { Malloc.free(ptr) };
        }
    }

    #[test]
    fn an_arena_lies_inside_its_block_which_goes_with_it() {
        let mut source = MallocArenas::new(Watched::default());
        for bytes in [64, 128, 1 << 12, 1 << 18] {
            let size = ArenaSize::new(bytes).unwrap();
            let arena = source.map(size).unwrap();
            let (block, length) = source.0.0.get().unwrap();
            let start = arena.addr().get();
            assert!(block + START <= start && start + bytes <= block + length);
            assert_eq!(length, START + 2 * bytes);
            // SAFETY: the arena came from this source and is not used again.
            unsafe { source.unmap(arena, size) };
            assert_eq!(source.0.0.get(), None);
        }
    }

    #[test]
    fn a_layer_without_memory_has_no_arenas() {
        let size = ArenaSize::new(1 << 18).unwrap();
        assert_eq!(MallocArenas::new(NoAlloc).map(size), Err(MapError::Exhausted { size }));
    }
}
