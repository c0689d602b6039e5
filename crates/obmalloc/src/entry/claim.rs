//! The test of whether a pointer is a block of a given heap.
//!
//! A heap recognises its blocks if its arenas come from a [`KnownArenas`].

use core::ptr::NonNull;

use raw_mem::{ArenaSize, ArenaSource, MapError, MemAlloc};

use crate::{
    arena::map::ArenaMap,
    geometry::{Geometry, eras::Pools16K},
    heap::Heap,
    pool::block::BlockPtr,
};

/// The result of [`Heap::claim`]: whether a pointer is a block of the heap.
#[derive(Debug)]
pub enum Claim {
    /// A block of this heap.
    Ours(BlockPtr),
    /// A pointer outside of all arenas of this heap, such as a block of another allocator.
    Foreign(NonNull<u8>),
}

/// An arena source that wraps another source and records which arenas are mapped.
///
/// `A` allocates the arena map. Every arena must have the size that the geometry `G` sets.
#[derive(Debug)]
pub struct KnownArenas<S, A: MemAlloc, G: Geometry = Pools16K> {
    source: S,
    lower: A,
    map: ArenaMap<G>,
}

impl<S, A: MemAlloc> KnownArenas<S, A> {
    sync::const_unless_model! {
        /// Wraps `source` for a heap with the geometry [`Pools16K`]. `lower` allocates the map.
        pub fn new(source: S, lower: A) -> Self {
            Self::with_geometry(source, lower)
        }
    }
}

impl<S, A: MemAlloc, G: Geometry> KnownArenas<S, A, G> {
    sync::const_unless_model! {
        /// Wraps `source` for a heap with the geometry `G`. `lower` allocates the map.
        pub fn with_geometry(source: S, lower: A) -> Self {
            Self { source, lower, map: ArenaMap::new() }
        }
    }

    /// Returns true if `address` lies in an arena that this source has mapped.
    #[inline]
    pub fn contains(&self, address: usize) -> bool {
        self.map.contains(address)
    }

    /// Returns the arena map.
    pub fn map(&self) -> &ArenaMap<G> {
        &self.map
    }
}

// SAFETY: the source below maps and unmaps every arena.
unsafe impl<S: ArenaSource, A: MemAlloc, G: Geometry> ArenaSource for KnownArenas<S, A, G> {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        let arena = self.source.map(size)?;
        // SAFETY: the source below mapped the arena just now, and nothing else refers to it.
        let unmap = |arena| unsafe { self.source.unmap(arena, size) };
        // SAFETY: all nodes of the map come from `lower`. The arena stays mapped until `unmap`
        // retracts it.
        unsafe { self.map.publish_or_unmap(arena, size, &self.lower, unmap) }
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        // SAFETY: nothing uses the arena any more (contract of `unmap`), so no block is in use.
        unsafe { self.map.retract(arena.addr().get()) };
        // SAFETY: the arena came from the source below, and nothing uses it (contract of `unmap`).
        unsafe { self.source.unmap(arena, size) }
    }

    fn below(&mut self) -> Option<&mut dyn ArenaSource> {
        Some(&mut self.source)
    }
}

impl<S, A: MemAlloc, G: Geometry> Drop for KnownArenas<S, A, G> {
    fn drop(&mut self) {
        // SAFETY: `lower` allocated all nodes of the map, and no arena of a dropped source may be
        // used (contract of `ArenaSource`), so no block is in use.
        unsafe { self.map.release(&self.lower) };
    }
}

impl<S: ArenaSource, M: MemAlloc, A: MemAlloc, G: Geometry> Heap<KnownArenas<S, M, G>, A, G> {
    /// Determines whether `ptr` is a block of this heap, without reading the memory at `ptr`.
    ///
    /// # Safety
    ///
    /// If `ptr` lies in an arena that the heap's source has mapped:
    ///
    /// - `ptr` must be the start of one of this heap's blocks.
    /// - The caller must own that block exclusively.
    #[inline]
    pub unsafe fn claim(&self, ptr: NonNull<u8>) -> Claim {
        if self.source().contains(ptr.addr().get()) {
            // SAFETY: `ptr` is the start of a block that the caller exclusively owns (contract).
            Claim::Ours(unsafe { BlockPtr::from_start(ptr) })
        } else {
            Claim::Foreign(ptr)
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::cell::RefCell;
    use std::{rc::Rc, vec::Vec};

    use raw_mem::{Malloc, MmapArenas, PurgeError};

    use super::*;
    use crate::geometry::{
        eras::{Pools16K, Tiny},
        shape::Shape,
    };

    #[test]
    fn an_arena_of_another_size_is_refused() {
        let mut known = KnownArenas::new(MmapArenas::new(), Malloc);
        let small = Shape::<Tiny>::ARENA;
        assert_eq!(ArenaSource::map(&mut known, small), Err(MapError::Exhausted { size: small }));
        assert_eq!(known.map().leaves(), 0);
    }

    #[test]
    fn an_arena_that_cannot_be_published_is_unmapped() {
        let mut mmap = MmapArenas::new();
        let mut known = KnownArenas::<_, _, Pools16K>::with_geometry(&mut mmap, raw_mem::NoAlloc);
        let size = Shape::<Pools16K>::ARENA;
        assert_eq!(ArenaSource::map(&mut known, size), Err(MapError::Exhausted { size }));
        drop(known);
        let arena = mmap.map(size).unwrap();
        // SAFETY: the arena was mapped above.
        unsafe { mmap.unmap(arena, size) };
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Call {
        Purge(usize),
        Trim,
        Retain(usize, usize),
        Reuse(usize),
    }

    /// A source without arenas that records its calls.
    #[derive(Default)]
    struct Recording(Rc<RefCell<Vec<Call>>>);

    // SAFETY: it returns no arena.
    unsafe impl ArenaSource for Recording {
        fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
            Err(MapError::Exhausted { size })
        }

        unsafe fn unmap(&mut self, _arena: NonNull<u8>, _size: ArenaSize) {}

        unsafe fn purge(&mut self, _start: NonNull<u8>, len: usize) -> Result<(), PurgeError> {
            self.0.borrow_mut().push(Call::Purge(len));
            Ok(())
        }

        fn trim(&mut self) {
            self.0.borrow_mut().push(Call::Trim);
        }

        fn retain(&mut self, had: usize, want: usize) -> usize {
            self.0.borrow_mut().push(Call::Retain(had, want));
            want
        }

        fn reuse_retained(&mut self, count: usize) {
            self.0.borrow_mut().push(Call::Reuse(count));
        }
    }

    /// Mutant 15; mutant 16.
    #[test]
    fn every_call_reaches_the_source_below() {
        let below = Recording::default();
        let calls = Rc::clone(&below.0);
        let mut known = KnownArenas::new(below, Malloc);
        assert_eq!(known.retain(1, 2), 2);
        known.reuse_retained(3);
        // SAFETY: the source below touches no memory.
        assert_eq!(unsafe { known.purge(NonNull::<u8>::dangling(), 64) }, Ok(()));
        let mut heap = Heap::new(known, Malloc);
        heap.trim();
        let expected =
            [Call::Retain(1, 2), Call::Reuse(3), Call::Purge(64), Call::Retain(0, 0), Call::Trim];
        assert_eq!(*calls.borrow(), expected);
    }
}
