//! Arenas from a [`MemAlloc`]: the older way, as up to CPython 2.5.
//!
//! ```text
//!   block of the layer below: one and a bit arenas' worth
//!   ├─ ─ ─ ─ ┬─────┬──────────────────────┬─ ─ ─┤
//!   │ unused │start│        arena         │     │
//!   └─ ─ ─ ─ ┴─────┴──────────────────────┴─ ─ ─┘
//!             the word before the arena: where the block starts
//! ```

use core::{num::NonZero, ptr::NonNull};

use crate::{ArenaSize, ArenaSource, MapError, MemAlloc, align_up};

/// Bytes kept before each arena for the start of its block.
const START: usize = size_of::<NonNull<u8>>();

/// A layer below, as a source of arenas. Alignment costs up to one arena's worth of addresses for
/// each arena; whether it costs memory is the layer's affair.
#[derive(Clone, Copy, Debug, Default)]
pub struct MallocArenas<A>(A);

impl<A: MemAlloc> MallocArenas<A> {
    /// Arenas that are blocks of `lower`.
    pub const fn new(lower: A) -> Self {
        Self(lower)
    }
}

// SAFETY: an arena is a part of a live block of the layer below that nobody else knows; it is
// aligned by the arithmetic of `map`.
unsafe impl<A: MemAlloc> ArenaSource for MallocArenas<A> {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        let block = self.0.malloc(START + 2 * size.bytes()).ok_or(MapError::Exhausted { size })?;
        let aligned = align_up(block.addr().get() + START, size.bytes()).and_then(NonZero::new);
        // A live block ends below the top of the address space, so its middle is an address.
        let arena = block.map_addr(|start| aligned.unwrap_or(start));
        // SAFETY: the arena begins at least START bytes behind the block's start and, rounded up
        // by less than its size, ends inside of it.
        unsafe { arena.cast::<NonNull<u8>>().sub(1).write(block) };
        Ok(arena)
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, _size: ArenaSize) {
        // SAFETY: `map` wrote the start of the block before the arena, and nobody else writes
        // there.
        let block = unsafe { arena.cast::<NonNull<u8>>().sub(1).read() };
        // SAFETY: the block came from this layer, and the arena in it is not used any more.
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
            // SAFETY: the arena is mapped, and this test's alone.
            unsafe { arena.write_bytes(0xff, size.bytes()) };
        }
        for arena in arenas {
            // SAFETY: it came from this source and is not used again.
            unsafe { source.unmap(arena, size) };
        }
    }

    /// Malloc that remembers the block it gave last, until that block is freed.
    #[derive(Default)]
    struct Watched(Cell<Option<(usize, usize)>>);

    // SAFETY: the blocks are malloc's.
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
            // SAFETY: the caller's promise.
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
            // SAFETY: it came from this source and is not used again.
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
