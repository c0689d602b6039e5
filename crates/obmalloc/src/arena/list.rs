//! The arenas of several heaps, in a list whose memory any thread may count.
//!
//! ```text
//!   arena                                      first unit
//!   ├─────────┬─────┬──────┬───────────┬ ─ ─ ─ ─ ─ ─ ─ ─ ─ ┤
//!   │ headers │ tag │ node │ unused    │ first block        │
//!   ├─────────┴─────┴──────┴───────────┴ ─ ─ ─ ─ ─ ─ ─ ─ ─ ┤
//! ```
//!
//! Any thread can count the live blocks of the arenas in the list. The thread locks the list and
//! reads the header of every pool. The arenas stay mapped during the count, because a thread that
//! unmaps an arena must first lock the list and remove the arena from it.
//!
//! During the count, the threads that own the heaps may allocate and free blocks. The result is
//! therefore approximate. To avoid data races, the counting thread reads the headers with atomic
//! loads.

use core::{
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use raw_mem::Contents;

use crate::{
    arena::{
        pages::{PAGE, Pages, WORDS},
        units::Run,
    },
    geometry::{
        Geometry, HeaderRule, RetainRule,
        shape::{POOL_OVERHEAD, Shape},
    },
    heap::figures::{ArenaFigures, ArenaTotals, Count},
    pool::{PoolPtr, Watched, tag::HeapTag},
};

/// A list of arenas with the same geometry.
///
/// Only the geometry [`Native`](crate::Native) reserves space for the nodes. With any other
/// geometry, the list stays empty.
#[derive(Debug)]
pub struct ArenaList {
    /// # Invariant
    ///
    /// The first node of a doubly linked chain. Each node lies in a mapped arena.
    first: Option<NonNull<Node>>,
}

/// The list's node in an arena. It also stores the bit masks that other threads read.
#[derive(Debug)]
struct Node {
    /// A bit for each unit that is free and may be backed by memory. Only the owner changes it.
    dirty: AtomicU64,
    /// A bit for each page that was purged and has not been used since. Only the owner changes it.
    purged: [AtomicU64; WORDS],
    next: Option<NonNull<Self>>,
    prev: Option<NonNull<Self>>,
}

impl Node {
    fn new(dirty: u64, next: Option<NonNull<Self>>) -> Self {
        let purged = [const { AtomicU64::new(0) }; WORDS];
        Self { dirty: AtomicU64::new(dirty), purged, next, prev: None }
    }
}

/// Publishes a bit mask of the free units of the arena at `base` that may be backed by memory.
///
/// # Safety
///
/// - The arena must be valid for reads and writes, and belong to the calling owner.
pub(crate) unsafe fn publish_dirty<G: Geometry>(base: NonNull<u8>, dirty: u64) {
    if ArenaList::has_room::<G>() {
        // SAFETY: the node lies in the arena (contract), in memory that nothing else uses.
        let node = unsafe { base.add(node_offset::<G>()) }.cast::<Node>();
        // SAFETY: every value is a valid number, and other threads access it only atomically.
        unsafe { &(*node.as_ptr()).dirty }.store(dirty, Relaxed);
    }
}

/// Publishes the set of pages of the arena at `base` that were purged and have not been used since.
///
/// # Safety
///
/// - The arena must be valid for reads and writes, and belong to the calling owner.
pub(crate) unsafe fn publish_purged<G: Geometry>(base: NonNull<u8>, purged: Pages) {
    if ArenaList::has_room::<G>() {
        // SAFETY: the node lies in the arena (contract), in memory that nothing else uses.
        let node = unsafe { base.add(node_offset::<G>()) }.cast::<Node>();
        // SAFETY: every value is a valid number, and other threads access it only atomically.
        let words = unsafe { &(*node.as_ptr()).purged };
        for (word, pages) in words.iter().zip(purged.words()) {
            word.store(pages, Relaxed);
        }
    }
}

// SAFETY: a node is accessed only through the list that it is in, and is not tied to a thread.
unsafe impl Send for ArenaList {}

impl ArenaList {
    /// Creates an empty list.
    pub const fn new() -> Self {
        Self { first: None }
    }

    const fn has_room<G: Geometry>() -> bool {
        matches!(G::RULES.headers, HeaderRule::InArena)
            && matches!(G::RULES.retain, RetainRule::EachClass)
            && node_offset::<G>() + size_of::<Node>() <= Shape::<G>::BEFORE_FIRST_POOL
    }

    /// Adds the arena at `base`, in which no pool has been carved yet.
    ///
    /// # Safety
    ///
    /// - `base` must point to a new arena with the geometry `G`.
    /// - The arena must be aligned to its own size, and valid for reads and writes.
    /// - The arena must stay mapped until it is [removed](Self::remove) from this list.
    /// - If `contents` is [`Contents::Zero`], every byte of the arena must be zero.
    /// - All other arenas in this list must have the same geometry.
    pub unsafe fn add<G: Geometry>(&mut self, base: NonNull<u8>, contents: Contents) {
        if !Self::has_room::<G>() {
            return;
        }
        let dirty = if contents == Contents::Zero { 0 } else { u64::MAX };
        if contents != Contents::Zero {
            // A header that consists of zeros means that the pool was never carved.
            // SAFETY: the headers lie in the arena, which is valid and not used yet (contract).
            unsafe { base.write_bytes(0, Shape::<G>::POOLS * POOL_OVERHEAD) };
        }
        // SAFETY: the node lies in the arena, between the tag and the first block.
        let node = unsafe { base.add(node_offset::<G>()) }.cast::<Node>();
        // SAFETY: the arena is valid for writes (contract), and the node is aligned.
        unsafe { node.write(Node::new(dirty, self.first)) };
        if let Some(first) = self.first {
            // SAFETY: the node is in the list, so its arena is mapped (invariant of `first`).
            unsafe { (*first.as_ptr()).prev = Some(node) };
        }
        // INVARIANT: the arena is mapped (contract), and both links were set above.
        self.first = Some(node);
    }

    /// Removes the arena at `base`, which is about to be unmapped.
    ///
    /// # Safety
    ///
    /// - The arena must have been [added](Self::add) to this list with the same geometry, and not
    ///   been removed since.
    pub unsafe fn remove<G: Geometry>(&mut self, base: NonNull<u8>) {
        if !Self::has_room::<G>() {
            return;
        }
        // SAFETY: the node lies in the arena, which is still mapped (contract).
        let node = unsafe { base.add(node_offset::<G>()) }.cast::<Node>();
        // SAFETY: the node was written when the arena was added (contract).
        let Node { next, prev, .. } = unsafe { node.read() };
        if let Some(next) = next {
            // SAFETY: the node is in the list, so its arena is mapped (invariant of `first`).
            unsafe { (*next.as_ptr()).prev = prev };
        }
        match prev {
            // SAFETY: as above.
            Some(prev) => unsafe { (*prev.as_ptr()).next = next },
            None => self.first = next,
        }
    }

    /// Counts the memory of all arenas. Their owners may allocate and free during the count.
    /// O(units).
    ///
    /// # Safety
    ///
    /// - The arenas must have been added with the geometry `G`.
    pub unsafe fn figures<G: Geometry>(&self) -> ArenaFigures {
        let mut figures = ArenaFigures::empty::<G>();
        // SAFETY: the contract is the same.
        unsafe { self.count::<G>(&mut figures) };
        figures
    }

    /// Like [`figures`](Self::figures), but without the size classes. This needs little stack.
    ///
    /// # Safety
    ///
    /// - The requirements of [`figures`](Self::figures) must be met.
    pub unsafe fn totals<G: Geometry>(&self) -> ArenaTotals {
        let mut totals = ArenaTotals::empty::<G>();
        // SAFETY: the contract is the same.
        unsafe { self.count::<G>(&mut totals) };
        totals
    }

    /// Adds the memory of all arenas to `count`.
    ///
    /// # Safety
    ///
    /// - The requirements of [`figures`](Self::figures) must be met.
    unsafe fn count<G: Geometry>(&self, count: &mut impl Count) {
        let mut next = self.first;
        while let Some(node) = next {
            // SAFETY: the node is in the list, so its arena is mapped (invariant of `first`).
            let Node { dirty, purged, next: other, .. } = unsafe { node.as_ref() };
            let purged = Pages::from_words(purged.each_ref().map(|word| word.load(Relaxed)));
            next = *other;
            // SAFETY: the node has this offset in its arena, which begins with its headers.
            let base = unsafe { node.cast::<u8>().sub(node_offset::<G>()) };
            // SAFETY: the arena is in the list, so it is mapped and has headers of this geometry.
            unsafe { count_arena::<G>(base, dirty.load(Relaxed), purged, count) };
        }
    }
}

impl Default for ArenaList {
    fn default() -> Self {
        Self::new()
    }
}

const fn node_offset<G: Geometry>() -> usize {
    (Shape::<G>::TAG + size_of::<HeapTag>()).next_multiple_of(align_of::<Node>())
}

/// Adds the memory of one arena.
///
/// # Safety
///
/// - The arena at `base` must have geometry `G`, and must be in an [`ArenaList`] throughout the
///   call.
unsafe fn count_arena<G: Geometry>(
    base: NonNull<u8>,
    dirty: u64,
    purged_pages: Pages,
    count: &mut impl Count,
) {
    let purged_of = |first, units| match Shape::<G>::PURGES {
        true => purged_pages.count_in(Run { first, units }.pages::<G>()) * PAGE,
        false => 0,
    };
    let (mut unit, mut active, mut purged) = (0, 0, 0);
    while unit < Shape::<G>::POOLS {
        // SAFETY: the unit lies in the arena, whose headers were cleared when it was added.
        let watched = unsafe { PoolPtr::watch::<G>(base, unit) };
        match watched {
            Some(Watched { class, in_use }) => {
                let purged_of_pool = purged_of(unit, class.units());
                if in_use > 0 {
                    active += class.pool_bytes() - purged_of_pool;
                    count.add_pool(class, in_use);
                }
                purged += purged_of_pool;
                unit += class.units();
            }
            None => {
                let is_dirty = dirty >> unit & 1 != 0;
                purged += if is_dirty { purged_of(unit, 1) } else { G::SIZES.pool_size };
                unit += 1;
            }
        }
    }
    count.add_arena(active, purged);
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, vec::Vec};

    use proptest::prelude::*;
    use raw_mem::{ArenaSize, ArenaSource, Malloc, MapError, MmapArenas, RetainingArenas};

    use super::*;
    use crate::{
        geometry::{
            eras::{Native, Pools16K},
            size_class::SizeClass,
        },
        heap::{Heap, figures::Kind},
        pool::block::BlockPtr,
    };

    /// A source that lists the arenas of its heap.
    struct Listing<'l>(RetainingArenas<MmapArenas>, &'l Mutex<ArenaList>);

    // SAFETY: the wrapped source maps and unmaps every arena.
    unsafe impl ArenaSource for Listing<'_> {
        fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
            Ok(self.map_with_contents(size)?.0)
        }

        fn map_with_contents(
            &mut self,
            size: ArenaSize,
        ) -> Result<(NonNull<u8>, Contents), MapError> {
            let (arena, contents) = self.0.map_with_contents(size)?;
            // SAFETY: the arena is new, and is removed before it is unmapped.
            unsafe { self.1.lock().unwrap().add::<Native>(arena, contents) };
            Ok((arena, contents))
        }

        unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
            // SAFETY: the arena was added when it was mapped.
            unsafe { self.1.lock().unwrap().remove::<Native>(arena) };
            // SAFETY: the contract is the same.
            unsafe { self.0.unmap(arena, size) };
        }

        fn below(&mut self) -> Option<&mut dyn ArenaSource> {
            Some(&mut self.0)
        }
    }

    type TestHeap<'l> = Heap<Listing<'l>, Malloc, Native>;

    fn heap(list: &Mutex<ArenaList>) -> TestHeap<'_> {
        let arenas = RetainingArenas::new(MmapArenas::new());
        Heap::with_geometry(Listing(arenas, list), Malloc)
    }

    fn figures(list: &Mutex<ArenaList>) -> ArenaFigures {
        // SAFETY: all arenas have this geometry.
        unsafe { list.lock().unwrap().figures::<Native>() }
    }

    fn totals(list: &Mutex<ArenaList>) -> ArenaTotals {
        // SAFETY: all arenas have this geometry.
        unsafe { list.lock().unwrap().totals::<Native>() }
    }

    /// Asserts that the list counts the same memory as a walk of the only heap.
    fn agrees(heap: &TestHeap<'_>, list: &Mutex<ArenaList>) {
        let (counted, walked) = (figures(list), heap.stats());
        let totals = totals(list);
        assert_eq!(&totals, counted.totals());
        assert_eq!(totals.arenas(), walked.arenas.current);
        for (counted, walked) in counted.classes().iter().zip(walked.classes()) {
            assert_eq!(counted.block_size, walked.block_size);
            assert_eq!(counted.in_use.blocks, walked.in_use, "{} bytes", walked.block_size);
            let bytes = SizeClass::<Native>::of(walked.block_size).unwrap().pool_bytes();
            assert_eq!(counted.in_use.active, walked.pools * bytes, "{} bytes", walked.block_size);
        }
        let allocated: usize = Kind::ALL.iter().map(|kind| totals.of_kind(*kind).allocated).sum();
        assert_eq!(allocated, walked.bytes.in_use);
        assert_eq!(totals.mapped() - totals.active(), walked.bytes.unused_pools);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]

        #[test]
        fn the_list_counts_what_a_walk_of_the_heap_counts(
            ops in proptest::collection::vec((any::<bool>(), 1_usize..480 << 10, 0_u32..18), 1..400),
        ) {
            let list = Mutex::new(ArenaList::new());
            let mut heap = heap(&list);
            let mut blocks: Vec<BlockPtr> = Vec::new();
            for (nth, (is_free, size, shift)) in ops.into_iter().enumerate() {
                if is_free && !blocks.is_empty() {
                    let block = blocks.swap_remove(size % blocks.len());
                    // SAFETY: the block came from this heap, and is not used again.
                    unsafe { heap.free(block) };
                } else {
                    let class = SizeClass::of((size >> shift).max(1)).unwrap();
                    blocks.push(heap.alloc(class).unwrap());
                }
                if nth % 8 == 0 {
                    agrees(&heap, &list);
                }
            }
            agrees(&heap, &list);
            for block in blocks {
                // SAFETY: as above.
                unsafe { heap.free(block) };
            }
            agrees(&heap, &list);
            heap.trim();
            prop_assert_eq!(totals(&list).arenas(), 0);
        }
    }

    #[test]
    fn free_units_are_retained_once_they_were_used_and_purged_before() {
        let list = Mutex::new(ArenaList::new());
        let mut heap = heap(&list);
        let small = heap.alloc(SizeClass::of(16).unwrap()).unwrap();
        assert_eq!((totals(&list).purged(), totals(&list).retained()), (63 << 14, 0));
        let span = heap.alloc(SizeClass::of(400 << 10).unwrap()).unwrap();
        let units = SizeClass::<Native>::of(400 << 10).unwrap().units();
        assert_eq!(totals(&list).purged(), (63 - units) << 14);
        // SAFETY: both blocks came from this heap, and are not used again.
        unsafe {
            heap.free(span);
            assert_eq!(totals(&list).purged(), (63 - units) << 14);
            assert_eq!(totals(&list).retained(), units << 14);
            heap.free(small);
        }
    }

    #[test]
    fn purged_pages_of_pools_in_use_count_as_purged_until_they_are_used_again() {
        const FULL: usize = 20_000;
        let list = Mutex::new(ArenaList::new());
        let mut heap = heap(&list);
        let class = SizeClass::of(64).unwrap();
        let mut alloc =
            |count: usize| -> Vec<_> { (0..count).map(|_| heap.alloc(class).unwrap()).collect() };
        let blocks = alloc(20_000);
        let full = totals(&list);
        for (nth, block) in blocks.into_iter().enumerate() {
            // Each pool of 200 or 256 blocks keeps one or two.
            if nth % 160 != 159 {
                // SAFETY: the block came from this heap, and is not used again.
                unsafe { heap.free(block) };
            }
        }
        let before = totals(&list);
        assert_eq!((before.active(), before.purged()), (full.active(), full.purged()));
        let trimmed = heap.trim();
        let after = totals(&list);
        assert_eq!(after.purged() - before.purged(), trimmed);
        assert!(2 * after.active() < before.active(), "most pages have no block in use");
        assert_eq!(after.active() + after.retained() + after.purged(), after.mapped());
        assert_eq!(after.of_kind(Kind::Small).blocks, 125);
        let _again: Vec<_> = (125..FULL).map(|_| heap.alloc(class).unwrap()).collect();
        let again = totals(&list);
        assert_eq!(again.of_kind(Kind::Small).blocks, FULL);
        assert!(again.purged().abs_diff(full.purged()) <= 2 << 14, "two pools may differ");
        assert_eq!(again.active() + again.purged(), again.mapped());
    }

    #[test]
    fn a_retained_arena_is_counted_anew_by_its_next_heap() {
        let list = Mutex::new(ArenaList::new());
        let class = SizeClass::<Native>::of(512).unwrap();
        let mut heap = heap(&list);
        for _ in 0..4 {
            let blocks: Vec<_> = (0..5000).map(|_| heap.alloc(class).unwrap()).collect();
            agrees(&heap, &list);
            assert_eq!(totals(&list).of_kind(Kind::Small).blocks, 5000);
            for block in blocks {
                // SAFETY: the block came from this heap, and is not used again.
                unsafe { heap.free(block) };
            }
            heap.unmap_free_arenas();
            assert_eq!(totals(&list).arenas(), 0);
        }
    }

    #[test]
    fn a_geometry_without_room_for_the_list_is_not_counted() {
        let mut memory = MmapArenas::new();
        let arena = memory.map(Shape::<Pools16K>::ARENA).unwrap();
        let mut list = ArenaList::new();
        // SAFETY: the test owns the arena.
        unsafe {
            list.add::<Pools16K>(arena, Contents::Zero);
            assert_eq!(list.totals::<Pools16K>().arenas(), 0);
            list.remove::<Pools16K>(arena);
            memory.unmap(arena, Shape::<Pools16K>::ARENA);
        }
    }
}
