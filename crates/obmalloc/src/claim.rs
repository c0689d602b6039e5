//! A pointer from outside: a block of ours, or somebody else's.
//!
//! A heap does not keep a map of its arenas; its source does. [`KnownArenas`] is a source around
//! a source that enters each arena it hands out in an [`ArenaMap`], and strikes it out when it
//! comes back. A heap on top of it can be asked whose a pointer is.

use core::{ffi::CStr, ptr::NonNull};

use raw_mem::{Advice, AdviseError, ArenaSize, ArenaSource, MapError, MemAlloc};

use crate::{
    arena_map::{ArenaMap, OwnerId},
    block::BlockPtr,
    geometry::Geometry,
    heap::Heap,
};

/// What a pointer from outside turned out to be.
#[derive(Debug)]
pub enum Claim {
    /// A block of this heap.
    Ours(BlockPtr),
    /// Not in any arena of this heap: it belongs to the layer below.
    Foreign(NonNull<u8>),
}

/// An arena source that knows every arena it has handed out.
///
/// The nodes of its map are blocks of `A`. It maps arenas of `G`'s size only, because an entry of
/// the map covers that much.
#[derive(Debug)]
pub struct KnownArenas<S, A: MemAlloc, G: Geometry> {
    source: S,
    lower: A,
    map: ArenaMap<G>,
}

/// The map has one owner only, and no need of names.
const OURS: OwnerId = OwnerId::MIN;

impl<S, A: MemAlloc, G: Geometry> KnownArenas<S, A, G> {
    sync::const_unless_model! {
        /// The arenas of `source`, remembered in nodes from `lower`.
        pub fn new(source: S, lower: A) -> Self {
            Self { source, lower, map: ArenaMap::new() }
        }
    }

    /// `address` is inside an arena that was handed out and has not come back.
    #[inline]
    pub fn holds(&self, address: usize) -> bool {
        self.map.owner(address).is_some()
    }

    /// The map of the arenas that were handed out, for reading.
    pub fn map(&self) -> &ArenaMap<G> {
        &self.map
    }
}

// SAFETY: the arenas are those of the source below.
unsafe impl<S: ArenaSource, A: MemAlloc, G: Geometry> ArenaSource for KnownArenas<S, A, G> {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        if size.bytes() != G::ARENA_SIZE {
            return Err(MapError::Exhausted { size });
        }
        let arena = self.source.map(size)?;
        // SAFETY: the map's nodes all come from `lower`. The arena was mapped just now, and
        // `unmap` retracts it.
        if unsafe { self.map.publish(arena.addr().get(), OURS, &self.lower) } {
            return Ok(arena);
        }
        // SAFETY: it was mapped just now, and nobody has seen it.
        unsafe { self.source.unmap(arena, size) };
        Err(MapError::Exhausted { size })
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        // Before the memory goes, because anyone may map the address afterwards.
        // SAFETY: nobody uses the arena any more (contract of `unmap`).
        unsafe { self.map.retract(arena.addr().get()) };
        // SAFETY: the caller's promise, which is about the source below as well.
        unsafe { self.source.unmap(arena, size) }
    }

    unsafe fn advise(
        &mut self,
        start: NonNull<u8>,
        len: usize,
        advice: Advice,
    ) -> Result<(), AdviseError> {
        // SAFETY: the caller's promise, which is about the source below as well.
        unsafe { self.source.advise(start, len, advice) }
    }

    fn name(&mut self, name: &'static CStr) {
        self.source.name(name);
    }

    fn trim(&mut self) {
        self.source.trim();
    }

    fn would_keep(&mut self) -> bool {
        self.source.would_keep()
    }

    fn kept_no_longer(&mut self, arenas: usize, used: bool) {
        self.source.kept_no_longer(arenas, used);
    }
}

impl<S, A: MemAlloc, G: Geometry> Drop for KnownArenas<S, A, G> {
    fn drop(&mut self) {
        // SAFETY: the map's nodes all came from `lower`. The source's arenas must not be used
        // once it is dropped (contract of `ArenaSource`).
        unsafe { self.map.release(&self.lower) };
    }
}

impl<S: ArenaSource, M: MemAlloc, A: MemAlloc, G: Geometry> Heap<KnownArenas<S, M, G>, A, G> {
    /// Tells whether `ptr` is a block of this heap. Reads the arena map, and never the memory at
    /// `ptr`.
    ///
    /// # Safety
    ///
    /// If `ptr` lies in an arena of this heap, it is the start of a block in use, and the caller
    /// is its only holder.
    #[inline]
    pub unsafe fn claim(&self, ptr: NonNull<u8>) -> Claim {
        if self.source().holds(ptr.addr().get()) {
            // SAFETY: it lies in an arena of ours; the rest is the caller's promise.
            Claim::Ours(unsafe { BlockPtr::from_start(ptr) })
        } else {
            Claim::Foreign(ptr)
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::{cell::RefCell, fmt};
    use std::{format, rc::Rc, string::String, vec::Vec};

    use raw_mem::{Malloc, MmapArenas};

    use super::*;
    use crate::{Pools16K, Shape, Tiny};

    type Known<G> = KnownArenas<MmapArenas, Malloc, G>;

    /// If a small arena were entered, the map would claim what lies beside it.
    #[test]
    fn an_arena_of_another_size_is_refused() {
        let mut known = Known::<Pools16K>::new(MmapArenas::new(), Malloc);
        let small = Shape::<Tiny>::ARENA;
        assert_eq!(ArenaSource::map(&mut known, small), Err(MapError::Exhausted { size: small }));
        assert_eq!(known.map().leaves(), 0);
    }

    /// A source that records what it is told.
    #[derive(Default)]
    struct Recording(Rc<RefCell<Vec<String>>>);

    impl Recording {
        fn add(&self, call: impl fmt::Debug) {
            self.0.borrow_mut().push(format!("{call:?}"));
        }
    }

    // SAFETY: it has no arenas.
    unsafe impl ArenaSource for Recording {
        fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
            Err(MapError::Exhausted { size })
        }

        unsafe fn unmap(&mut self, _arena: NonNull<u8>, _size: ArenaSize) {}

        unsafe fn advise(
            &mut self,
            start: NonNull<u8>,
            len: usize,
            advice: Advice,
        ) -> Result<(), AdviseError> {
            self.add((start.addr(), len, advice));
            Ok(())
        }

        fn name(&mut self, name: &'static CStr) {
            self.add(name);
        }

        fn trim(&mut self) {
            self.add("trim");
        }

        fn would_keep(&mut self) -> bool {
            self.add("would keep");
            true
        }

        fn kept_no_longer(&mut self, arenas: usize, used: bool) {
            self.add((arenas, used));
        }
    }

    /// mutants 15 and 16: names and trims were not passed on.
    #[test]
    fn the_source_below_hears_of_everything() {
        let below = Recording::default();
        let calls = Rc::clone(&below.0);
        let mut known = KnownArenas::<_, _, Pools16K>::new(below, Malloc);
        known.name(c"arenas of a test");
        assert!(known.would_keep());
        known.kept_no_longer(3, true);
        // SAFETY: the source below touches no memory.
        assert_eq!(unsafe { known.advise(NonNull::<u8>::dangling(), 64, Advice::Free) }, Ok(()));
        let mut heap = Heap::<_, _, Pools16K>::new(known, Malloc);
        heap.trim();
        let expected =
            ["\"arenas of a test\"", "\"would keep\"", "(3, true)", "(1, 64, Free)", "\"trim\""];
        assert_eq!(*calls.borrow(), expected);
    }
}
