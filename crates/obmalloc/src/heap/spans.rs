//! Spans, which are pools of one block.
//!
//! A size class can retain its empty spans in a list. A later request for the class takes a span
//! from this list, so the heap need not search its arenas for one. The fast path allocates the
//! block of the first span but leaves the span in the list. The next request therefore finds the
//! first span in use, as the picture shows. This request removes the first span from the list, then
//! removes the empty span after it, and allocates the block of that second span:
//!
//! ```text
//!   list of the class    span, in use ► span, empty ► span, empty
//!                        │ the next request marks it as full and takes the second span
//!                        ▼
//!   in no list           span, full      when its block is freed, it can return to the front
//! ```
//!
//! A *sweep* is a regular search for unused memory. The first span of a class that becomes empty
//! after a sweep returns to its arena, where any class can use its units. The class can retain all
//! spans that become empty later. The reason is that many spans are used only once, and that a
//! retained span can serve only its own class. If a class has recently retained spans, it can
//! retain the first one, too.
//!
//! The arena source limits how many arenas may stay mapped only because they contain retained
//! pools.

#![cfg_attr(not(test), forbid(unsafe_code))]

use raw_mem::{ArenaSource, MemAlloc};

use crate::{
    geometry::{Geometry, size_class::SizeClass},
    heap::{Found, Heap},
    pool::{PoolPtr, State, block::BlockPtr},
};

/// The number of retained spans that a search for an aligned one visits.
const MAX_SEARCHED: usize = 8;

impl<S: ArenaSource, A: MemAlloc, G: Geometry> Heap<S, A, G> {
    /// Takes a retained span of `class`, or a new one.
    pub(crate) fn find_or_carve_span(&mut self, class: SizeClass<G>) -> Option<Found> {
        if let Some(block) = self.alloc_retained_span(class) {
            return Some(Found { block, carved_from: None });
        }
        let span = self.unused_pool(class, 1)?;
        Some(Found { block: span.carve_block::<G>()?, carved_from: Some(span) })
    }

    /// Allocates the block of the first span in the list of `class` that is not in use.
    ///
    /// Removes the allocated span, and all spans in use before it, from the list, and marks them as
    /// full. If every span in the list is in use, removes all of them and returns `None`.
    ///
    /// The next retained span then comes first in the list, so the fast path serves the next
    /// request.
    pub(crate) fn alloc_retained_span(&mut self, class: SizeClass<G>) -> Option<BlockPtr> {
        loop {
            let span = self.used.first(class);
            if span == PoolPtr::NONE {
                return None;
            }
            let block = span.header().take_only();
            self.release_from_retention(class, span);
            self.used.remove_first_full(class, span);
            if block.is_some() {
                return block;
            }
        }
    }

    /// Allocates the block of a retained span that begins at a multiple of `align` bytes.
    ///
    /// Spans at the front of the list can be in use. This function removes these spans from the
    /// list, and marks them as full. It then searches the first [`MAX_SEARCHED`] of the remaining
    /// spans for one that begins at a multiple of `align` bytes. Returns `None` if none of them
    /// does, or if the block of the span that was found is in use.
    pub(crate) fn alloc_aligned_span(
        &mut self,
        class: SizeClass<G>,
        align: usize,
    ) -> Option<BlockPtr> {
        loop {
            let span = self.used.first(class);
            if span == PoolPtr::NONE || span.free_blocks::<G>().next().is_some() {
                break;
            }
            self.mark_span_full(class, span);
        }
        let is_aligned = |span: &PoolPtr| span.start::<G>().addr().get().is_multiple_of(align);
        let span = self.used.iter(class).take(MAX_SEARCHED).find(is_aligned)?;
        let block = span.header().take_only();
        self.mark_span_full(class, span);
        block
    }

    fn mark_span_full(&mut self, class: SizeClass<G>, span: PoolPtr) {
        self.release_from_retention(class, span);
        self.used.remove_full(class, span);
    }

    #[inline]
    fn release_from_retention(&mut self, class: SizeClass<G>, span: PoolPtr) {
        if span.header().state() == State::Retained {
            self.empty.forget(class, span, &mut self.arenas);
        }
    }

    /// Retains a span whose block was freed, or returns it to its arena.
    pub(crate) fn span_emptied(&mut self, class: SizeClass<G>, span: PoolPtr) {
        if span.header().state() == State::Used {
            self.used.remove(class, span);
        }
        let wants = self.empty.note_freed(class);
        let (arena, units) = (span.header().arena(), class.units());
        if !wants || !self.arenas.note_retained_beside_others::<G>(arena, units) {
            if !self.may_retain(class, span, wants) {
                return self.free_pool(span);
            }
            self.arenas.note_retained::<G>(arena, units);
        }
        self.empty.retain_noted(class, span);
        self.used.link_first(class, span);
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use raw_mem::{Malloc, MmapArenas, RetainingArenas};

    use super::*;
    use crate::geometry::eras::Native;

    type TestHeap = Heap<RetainingArenas<MmapArenas>, Malloc, Native>;

    const SIZE: usize = 200 << 10;

    fn alloc(heap: &mut TestHeap, count: usize) -> Vec<BlockPtr> {
        let class = SizeClass::of(SIZE).unwrap();
        let blocks = (0..count).map(|_| heap.alloc(class).unwrap()).collect();
        heap.check_invariants();
        blocks
    }

    fn free(heap: &mut TestHeap, blocks: Vec<BlockPtr>) {
        for block in blocks {
            // SAFETY: the tests free each block once, to the heap that allocated it.
            unsafe { heap.free(block) };
            heap.check_invariants();
        }
    }

    fn heap() -> TestHeap {
        Heap::with_geometry(RetainingArenas::new(MmapArenas::new()), Malloc)
    }

    #[test]
    fn freed_spans_serve_the_next_requests_of_their_class() {
        let mut heap = heap();
        for count in [1, 2, 3] {
            let blocks = alloc(&mut heap, count);
            let mut before: Vec<_> = blocks.iter().map(BlockPtr::start).collect();
            free(&mut heap, blocks);
            let again = alloc(&mut heap, count);
            let mut after: Vec<_> = again.iter().map(BlockPtr::start).collect();
            before.sort();
            after.sort();
            assert_eq!(before, after);
            free(&mut heap, again);
        }
    }

    #[test]
    fn retained_spans_serve_requests_with_an_alignment() {
        let mut heap = heap();
        let class = SizeClass::of(64 << 10).unwrap();
        let is_aligned = |block: &BlockPtr| block.start().addr().get().is_multiple_of(64 << 10);
        let aligned = |heap: &mut TestHeap| {
            let block = heap.alloc_aligned(class, 64 << 10).unwrap();
            heap.check_invariants();
            assert!(is_aligned(&block));
            block
        };
        let starts = |blocks: &[BlockPtr]| {
            let mut starts: Vec<_> = blocks.iter().map(BlockPtr::start).collect();
            starts.sort();
            starts
        };
        // The first span that a class frees is not retained.
        let first = aligned(&mut heap);
        free(&mut heap, Vec::from([first]));
        // This unit lies at the end of an arena, so the spans before it are not aligned.
        let unit = heap.alloc(SizeClass::of(16 << 10).unwrap()).unwrap();
        let others: Vec<_> = (0..3).map(|_| heap.alloc(class).unwrap()).collect();
        assert!(!others.iter().any(is_aligned));
        let blocks: Vec<_> = (0..6).map(|_| aligned(&mut heap)).collect();
        let before = starts(&blocks);
        free(&mut heap, blocks);
        free(&mut heap, others);
        let again: Vec<_> = (0..6).map(|_| aligned(&mut heap)).collect();
        free(&mut heap, Vec::from([unit]));
        assert_eq!(starts(&again), before);
        free(&mut heap, again);
    }

    #[test]
    fn retained_spans_keep_arenas_mapped_only_in_demand() {
        let class = SizeClass::<Native>::of(SIZE).unwrap();
        let mut heap = heap();
        let blocks = alloc(&mut heap, 100);
        free(&mut heap, blocks);
        assert_eq!(heap.stats().arenas.current, 1);
        for _ in 0..3 {
            let blocks = alloc(&mut heap, 100);
            free(&mut heap, blocks);
        }
        assert!(heap.empty.units() >= 90 * class.units(), "{}", heap.empty.units());
        heap.trim();
        heap.check_invariants();
        assert_eq!((heap.empty.units(), heap.stats().arenas.current), (0, 0));
    }

    #[test]
    fn a_retained_span_in_use_that_becomes_full_is_no_longer_counted() {
        let mut heap = heap();
        for _ in 0..5 {
            let aligned = |nth: usize| {
                let class = SizeClass::of((64 << 10) * (1 + nth % 3)).unwrap();
                heap.alloc_aligned(class, 64 << 10).unwrap()
            };
            let blocks: Vec<_> = (0..50).map(aligned).collect();
            heap.check_invariants();
            free(&mut heap, blocks);
        }
    }

    /// Regression test: the heap removed the second span from the list but still counted it as
    /// retained.
    #[test]
    fn a_new_aligned_span_leaves_the_count_of_retained_spans_right() {
        let mut heap = heap();
        let class = SizeClass::of(64 << 10).unwrap();
        // The spans lie below this unit, so they are not aligned.
        let unit = heap.alloc(SizeClass::of(16 << 10).unwrap()).unwrap();
        let mut blocks: Vec<_> = (0..15).map(|_| heap.alloc(class).unwrap()).collect();
        let mut put = |heap: &mut TestHeap, at| free(heap, Vec::from([blocks.remove(at)]));
        // The first freed span is not retained. The second one is, and is used again at once.
        put(&mut heap, 0);
        put(&mut heap, 1);
        let used_again = heap.alloc_listed(class).unwrap();
        // The heap also retains the span that is freed here. The aligned request below needs the
        // units of this span. The heap must therefore return them to the arena, instead of mapping
        // a second arena.
        put(&mut heap, 0);
        let aligned = heap.alloc_aligned(class, 64 << 10).unwrap();
        assert_eq!(heap.stats().arenas.current, 1);
        heap.check_invariants();
        free(&mut heap, Vec::from([unit, used_again, aligned]));
        free(&mut heap, blocks);
    }

    /// Regression test: a request for a pool of several units mapped an arena.
    ///
    /// The heap also retained a large enough span, but released only a retained span of one unit.
    #[test]
    fn a_larger_retained_span_is_found_behind_retained_spans_of_one_unit() {
        let one_unit = SizeClass::<Native>::of(16 << 10).unwrap();
        let class = SizeClass::all().find(|class| class.units() > 1).unwrap();
        assert!(class.index() < one_unit.index() && one_unit.is_span() && one_unit.units() == 1);
        let mut heap = heap();
        let mut large = alloc(&mut heap, 2);
        // The first freed span of each class is not retained.
        free(&mut heap, large.split_off(1));
        let mut units = Vec::new();
        while heap.stats().arenas.current < 2 {
            units.push(heap.alloc(one_unit).unwrap());
        }
        free(&mut heap, units.split_off(units.len() - 1));
        heap.unmap_free_arenas();
        free(&mut heap, units.split_off(units.len() - 1));
        free(&mut heap, large);
        assert_eq!(heap.empty.count(), 2);
        let block = heap.alloc(class).unwrap();
        heap.check_invariants();
        assert_eq!(heap.stats().arenas.current, 1);
        free(&mut heap, Vec::from([block]));
        free(&mut heap, units);
    }

    #[test]
    fn a_class_retains_a_span_only_if_it_freed_another_one_since_the_last_sweep() {
        let mut heap = heap();
        let class = SizeClass::<Native>::of(SIZE).unwrap();
        let mut kept = alloc(&mut heap, 3);
        for expected in [0, 1, 2] {
            free(&mut heap, kept.split_off(2 - expected));
            assert_eq!(heap.empty.units(), expected * class.units());
        }
        let blocks = alloc(&mut heap, 1);
        heap.empty.note_idle();
        free(&mut heap, blocks);
        assert_eq!(heap.empty.units(), 2 * class.units());
        heap.trim();
        heap.empty.note_idle();
        let blocks = alloc(&mut heap, 1);
        free(&mut heap, blocks);
        assert_eq!(heap.empty.units(), 0);
    }

    #[test]
    fn retained_spans_make_room_for_other_classes() {
        let mut heap = heap();
        for _ in 0..2 {
            let blocks = alloc(&mut heap, 4);
            free(&mut heap, blocks);
        }
        let arenas = heap.stats().arenas.current;
        let small = SizeClass::of(512).unwrap();
        let blocks: Vec<_> = (0..arenas * 63 * 32).map(|_| heap.alloc(small).unwrap()).collect();
        assert_eq!((heap.empty.units(), heap.stats().arenas.current), (0, arenas));
        free(&mut heap, blocks);
    }
}
