//! A test for whether a pointer is a block of a given heap.
//!
//! A heap can recognise its blocks if its arenas come from a [`KnownArenas`].

use core::{ops::Range, ptr::NonNull};

use raw_mem::{ArenaSize, ArenaSource, Contents, LargeMapping, MapError, MemAlloc};

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
    /// A pointer outside all arenas of this heap, such as a block of another allocator.
    Foreign(NonNull<u8>),
}

/// An arena source that wraps another source and records which arenas are mapped.
///
/// `A` allocates the arena map. Every arena must have the size that the geometry `G` defines.
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

    /// Returns true if `address` lies in an arena or starts a large mapping of this source.
    ///
    /// Also returns true for every other address in the range that the source has reserved.
    #[inline]
    pub fn contains(&self, address: usize) -> bool {
        self.map.contains(address)
    }

    /// Returns the arena map.
    pub fn map(&self) -> &ArenaMap<G> {
        &self.map
    }
}

impl<S: ArenaSource, A: MemAlloc, G: Geometry> KnownArenas<S, A, G> {
    /// Records the reserved range of the source below in the map. The range may have grown.
    fn note_range(&mut self) {
        // SAFETY: the range contains only memory of the source below and keeps its start. Only
        // `shrink_reserved` makes it shorter (contract of `ArenaSource`), which shrinks the range
        // of the map too. Calls do not overlap, because they have `&mut self`. The map is released
        // before the source is dropped.
        unsafe { self.map.reserve(self.source.reserved()) };
    }

    /// Adds the start of new memory of the source below to the map. If that fails, passes the start
    /// to `unmap`.
    ///
    /// # Safety
    ///
    /// The memory must stay mapped until its start is retracted.
    unsafe fn publish(
        &mut self,
        start: NonNull<u8>,
        size: ArenaSize,
        unmap: impl FnOnce(&mut S, NonNull<u8>),
    ) -> Result<NonNull<u8>, MapError> {
        self.note_range();
        let unmap = |start| unmap(&mut self.source, start);
        // SAFETY: all nodes of the map come from `lower`. The memory stays mapped until it is
        // retracted (contract of `publish`).
        unsafe { self.map.publish_or_unmap(start, size, &self.lower, unmap) }
    }
}

// SAFETY: the source below maps and unmaps all memory.
unsafe impl<S: ArenaSource, A: MemAlloc, G: Geometry> ArenaSource for KnownArenas<S, A, G> {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        Ok(self.map_with_contents(size)?.0)
    }

    fn map_with_contents(&mut self, size: ArenaSize) -> Result<(NonNull<u8>, Contents), MapError> {
        let (arena, contents) = self.source.map_with_contents(size)?;
        // SAFETY: the source below mapped the arena just now, and nothing else refers to it.
        let unmap = |source: &mut S, arena| unsafe { source.unmap(arena, size) };
        // SAFETY: the arena stays mapped until `unmap` retracts it.
        unsafe { self.publish(arena, size, unmap) }.map(|arena| (arena, contents))
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        // SAFETY: nothing uses the arena any longer (contract of `unmap`), so no block is in use.
        unsafe { self.map.retract(arena.addr().get()) };
        // SAFETY: the arena came from the source below, and nothing uses it (contract of `unmap`).
        unsafe { self.source.unmap(arena, size) }
    }

    fn map_large(&mut self, bytes: usize, align: ArenaSize) -> Result<LargeMapping, MapError> {
        let mapping = self.source.map_large(bytes, align)?;
        // SAFETY: the source below made the mapping just now, and nothing else refers to it.
        let unmap = |source: &mut S, start| unsafe {
            source.unmap_large(start, mapping.bytes, align);
        };
        // SAFETY: the memory stays mapped until `unmap_large` retracts its start. When the mapping
        // is resized, it keeps its start or lies in the reserved range, which has no entries.
        match unsafe { self.publish(mapping.start, align, unmap) } {
            Ok(_) => Ok(mapping),
            Err(_) => Err(MapError::LargeExhausted { bytes }),
        }
    }

    unsafe fn unmap_large(&mut self, start: NonNull<u8>, bytes: usize, align: ArenaSize) {
        // SAFETY: nothing uses the mapping any longer (contract of `unmap_large`).
        unsafe { self.map.retract(start.addr().get()) };
        // SAFETY: the mapping came from the source below, and nothing uses it (contract).
        unsafe { self.source.unmap_large(start, bytes, align) }
    }

    unsafe fn resize_large(
        &mut self,
        start: NonNull<u8>,
        old: usize,
        new: usize,
        align: ArenaSize,
    ) -> Result<LargeMapping, MapError> {
        // SAFETY: the mapping came from the source below; the caller upholds the rest.
        let mapping = unsafe { self.source.resize_large(start, old, new, align) }?;
        self.note_range();
        Ok(mapping)
    }

    fn trim(&mut self) -> usize {
        let bytes = self.source.trim();
        // SAFETY: the range of this source is always empty, so nothing relies on it. The closure
        // does nothing.
        unsafe { self.shrink_reserved(&mut |_| ()) };
        bytes
    }

    /// Returns an empty range.
    ///
    /// A `KnownArenas` wraps another source, which can reserve a range of addresses. Only the arena
    /// map of the `KnownArenas` may store this range. An outer wrapper must not store it, because a
    /// call of [`trim`](ArenaSource::trim) can shorten the range, and tells only the arena map.
    fn reserved(&mut self) -> Range<usize> {
        0..0
    }

    /// Makes the range of the source below shorter. The range of this source stays empty, so
    /// `publish` is not called.
    unsafe fn shrink_reserved(&mut self, _publish: &mut dyn FnMut(Range<usize>)) {
        let map = &self.map;
        // SAFETY: the source passes the part of its range that remains, and nothing uses the rest.
        // Calls do not overlap, because they have `&mut self`.
        let mut publish = |range| unsafe { map.shrink(range) };
        // SAFETY: only the map stores the range, and the closure tells it the new one.
        unsafe { self.source.shrink_reserved(&mut publish) };
    }

    fn below(&mut self) -> Option<&mut dyn ArenaSource> {
        Some(&mut self.source)
    }
}

/// Safe code cannot make the source below a `KnownArenas` shorten its reserved range.
///
/// The arena map of the `KnownArenas` would otherwise still contain the longer range. Safe code can
/// trim the source below:
///
/// ```
/// # use obmalloc::KnownArenas;
/// # use raw_mem::{ArenaSource, Malloc, MmapArenas, ReservedArenas};
/// let mut known = KnownArenas::new(ReservedArenas::new(MmapArenas::new()), Malloc);
/// known.below().unwrap().trim();
/// ```
///
/// ```compile_fail,E0133
/// # use obmalloc::KnownArenas;
/// # use raw_mem::{ArenaSource, Malloc, MmapArenas, ReservedArenas};
/// let mut known = KnownArenas::new(ReservedArenas::new(MmapArenas::new()), Malloc);
/// known.below().unwrap().shrink_reserved(&mut |_| ());
/// ```
#[cfg(doctest)]
struct SafeCodeCannotShrinkTheRangeBelow;

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

    use raw_mem::{Malloc, MmapArenas, PurgeError, ReservedArenas, resize_or_copy};

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

    const SIZE: ArenaSize = Shape::<Pools16K>::ARENA;

    #[test]
    fn a_large_mapping_is_known_by_its_start_until_it_is_unmapped() {
        let mut known = KnownArenas::new(MmapArenas::new(), Malloc);
        let mapping = known.map_large(5 << 20, SIZE).unwrap();
        let start = mapping.start.addr().get();
        assert!(known.contains(start) && !known.contains(start + (1 << 20)));
        // SAFETY: the mapping came from this source, and the old one is not used again.
        let grown =
            unsafe { resize_or_copy(&mut known, mapping.start, mapping.bytes, 1 << 30, SIZE) };
        let grown = grown.unwrap();
        assert!(known.contains(grown.start.addr().get()));
        assert_eq!(known.contains(start), grown.start == mapping.start);
        // SAFETY: the mapping came from this source, and nothing uses it.
        unsafe { known.unmap_large(grown.start, grown.bytes, SIZE) };
        assert!(!known.contains(grown.start.addr().get()));
    }

    #[test]
    fn a_large_mapping_that_cannot_be_published_is_unmapped() {
        let mut known = KnownArenas::new(MmapArenas::new(), raw_mem::NoAlloc);
        let error = Err(MapError::LargeExhausted { bytes: 5 << 20 });
        assert_eq!(known.map_large(5 << 20, SIZE), error);
    }

    #[test]
    #[cfg(all(target_os = "linux", target_pointer_width = "64", not(miri)))]
    fn arenas_and_large_mappings_in_the_reserved_range_are_known_without_a_node() {
        let mut known = KnownArenas::new(ReservedArenas::new(MmapArenas::new()), raw_mem::NoAlloc);
        let arena = ArenaSource::map(&mut known, SIZE).unwrap();
        let mapping = known.map_large(5 << 20, SIZE).unwrap();
        assert!(known.contains(arena.addr().get()));
        assert!(known.contains(mapping.start.addr().get() + (3 << 20)));
        // SAFETY: the mapping came from this source, and the old one is not used again.
        let mapping =
            unsafe { resize_or_copy(&mut known, mapping.start, mapping.bytes, 1 << 30, SIZE) };
        let mapping = mapping.unwrap();
        let end = mapping.start.addr().get() + (1 << 30);
        assert!(known.contains(end - 1) && !known.contains(end));
        assert_eq!(known.map().leaves(), 0);
        // SAFETY: both came from this source, and nothing uses them.
        unsafe {
            known.unmap(arena, SIZE);
            known.unmap_large(mapping.start, mapping.bytes, SIZE);
        }
    }

    /// A source whose reserved range can become shorter.
    struct Shrinking;

    const RANGE: Range<usize> = 5 << 30..6 << 30;

    const SHORTER: Range<usize> = 5 << 30..(5 << 30) + (512 << 20);

    // SAFETY: the source never returns an arena.
    unsafe impl ArenaSource for Shrinking {
        fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
            Err(MapError::Exhausted { size })
        }

        unsafe fn unmap(&mut self, _arena: NonNull<u8>, _size: ArenaSize) {}

        unsafe fn shrink_reserved(&mut self, publish: &mut dyn FnMut(Range<usize>)) {
            publish(SHORTER);
        }
    }

    /// Regression test: only a trim told the map that the range had become shorter.
    #[test]
    fn the_map_learns_that_the_reserved_range_has_become_shorter() {
        let mut known = KnownArenas::new(Shrinking, Malloc);
        // SAFETY: the range contains no memory, so it contains none of other sources.
        unsafe { known.map.reserve(RANGE) };
        // SAFETY: only the map stores the range.
        unsafe { known.shrink_reserved(&mut |_| panic!("the range of the wrapper is empty")) };
        assert!(known.contains(SHORTER.end - 1) && !known.contains(SHORTER.end));
    }

    /// Regression test: the inner source made the range shorter in a trim, and only its own map
    /// learned that.
    #[test]
    #[cfg(all(target_os = "linux", target_pointer_width = "64", not(miri)))]
    fn the_map_of_a_wrapper_does_not_contain_addresses_that_a_trim_has_given_back() {
        let reserved = ReservedArenas::new(MmapArenas::new());
        let mut known = KnownArenas::new(KnownArenas::new(reserved, Malloc), Malloc);
        let arenas = [(); 5].map(|()| ArenaSource::map(&mut known, SIZE).unwrap());
        let [first, .., last] = arenas;
        assert!(known.contains(last.addr().get()));
        for arena in &arenas[1..] {
            // SAFETY: the arena came from this source, and nothing uses it.
            unsafe { known.unmap(*arena, SIZE) };
        }
        known.trim();
        assert!(known.contains(first.addr().get()) && !known.contains(last.addr().get()));
        // SAFETY: as above.
        unsafe { known.unmap(first, SIZE) };
    }

    #[test]
    #[cfg(all(target_os = "linux", target_pointer_width = "64", not(miri)))]
    fn a_source_that_was_used_before_can_be_trimmed() {
        let mut reserved = ReservedArenas::new(MmapArenas::new());
        let [before, last] = [(); 2].map(|()| reserved.map(SIZE).unwrap());
        // SAFETY: the arena came from this source, and nothing uses it.
        unsafe { reserved.unmap(last, SIZE) };
        let mut known = KnownArenas::new(reserved, Malloc);
        known.trim();
        assert!(!known.contains(0) && !known.contains(1 << 63));
        let arena = ArenaSource::map(&mut known, SIZE).unwrap();
        assert!(known.contains(arena.addr().get()));
        for arena in [arena, before] {
            // SAFETY: as above.
            unsafe { known.unmap(arena, SIZE) };
        }
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Call {
        Purge(usize),
        Trim,
        Retain(usize, usize),
        Reuse(usize),
        Resize(usize, usize),
    }

    /// A source without arenas that records its calls.
    #[derive(Default)]
    struct Recording(Rc<RefCell<Vec<Call>>>);

    // SAFETY: the source never returns an arena.
    unsafe impl ArenaSource for Recording {
        fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
            Err(MapError::Exhausted { size })
        }

        unsafe fn unmap(&mut self, _arena: NonNull<u8>, _size: ArenaSize) {}

        unsafe fn purge(&mut self, _start: NonNull<u8>, len: usize) -> Result<(), PurgeError> {
            self.0.borrow_mut().push(Call::Purge(len));
            Ok(())
        }

        fn trim(&mut self) -> usize {
            self.0.borrow_mut().push(Call::Trim);
            0
        }

        fn retain(&mut self, had: usize, want: usize) -> usize {
            self.0.borrow_mut().push(Call::Retain(had, want));
            want
        }

        fn reuse_retained(&mut self, count: usize) {
            self.0.borrow_mut().push(Call::Reuse(count));
        }

        unsafe fn resize_large(
            &mut self,
            _start: NonNull<u8>,
            old: usize,
            new: usize,
            _align: ArenaSize,
        ) -> Result<LargeMapping, MapError> {
            self.0.borrow_mut().push(Call::Resize(old, new));
            Err(MapError::LargeExhausted { bytes: new })
        }
    }

    /// Regression test (mutants 15 and 16).
    #[test]
    fn every_call_reaches_the_source_below() {
        let below = Recording::default();
        let calls = Rc::clone(&below.0);
        let mut known = KnownArenas::new(below, Malloc);
        assert_eq!(known.retain(1, 2), 2);
        known.reuse_retained(3);
        // SAFETY: the source below touches no memory.
        unsafe {
            assert_eq!(known.purge(NonNull::<u8>::dangling(), 64), Ok(()));
            assert!(known.resize_large(NonNull::<u8>::dangling(), 5, 6, SIZE).is_err());
        }
        let mut heap = Heap::new(known, Malloc);
        heap.trim();
        let expected = [
            Call::Retain(1, 2),
            Call::Reuse(3),
            Call::Purge(64),
            Call::Resize(5, 6),
            Call::Retain(0, 0),
            Call::Trim,
        ];
        assert_eq!(*calls.borrow(), expected);
    }
}
