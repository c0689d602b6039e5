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
//! Many blocks of these sizes are requested only once. A class therefore does not retain the first
//! span that it frees after a sweep, unless the class may still have had retained spans at the time
//! of that sweep. If a freed span is not retained, its units are freed and can serve any class.
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

impl<S: ArenaSource, A: MemAlloc, G: Geometry> Heap<S, A, G> {
    /// Takes a retained span of `class`, or a new one.
    pub(crate) fn find_or_carve_span(&mut self, class: SizeClass<G>) -> Option<Found> {
        if let Some(block) = self.alloc_retained_span(class) {
            return Some(Found { block, carved_from: None });
        }
        let span = self.unused_pool(class, 1)?;
        Some(Found { block: span.carve_block::<G>()?, carved_from: Some(span) })
    }

    /// Allocates the block of the next retained span of `class`, or returns `None`. Marks the spans
    /// in use that precede it as full.
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
            self.mark_span_full(class, span);
            if block.is_some() {
                return block;
            }
        }
    }

    /// Marks the spans at the front of the list of `class` as full, until the first one is empty.
    pub(crate) fn mark_used_spans_full(&mut self, class: SizeClass<G>) {
        loop {
            let span = self.used.first(class);
            if span == PoolPtr::NONE || span.free_blocks::<G>().next().is_some() {
                return;
            }
            self.mark_span_full(class, span);
        }
    }

    fn mark_span_full(&mut self, class: SizeClass<G>, span: PoolPtr) {
        if span.header().state() == State::Retained {
            self.empty.forget(class, span, &mut self.arenas);
        }
        self.used.remove_full(class, span);
    }

    /// Retains a span whose block was freed, or returns it to its arena.
    pub(crate) fn span_emptied(&mut self, class: SizeClass<G>, span: PoolPtr) {
        if span.header().state() == State::Used {
            self.used.remove(class, span);
        }
        let wants = self.empty.note_freed(class);
        if !self.may_retain(class, span, wants) {
            return self.free_pool(span);
        }
        self.empty.retain(class, span, &mut self.arenas);
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
