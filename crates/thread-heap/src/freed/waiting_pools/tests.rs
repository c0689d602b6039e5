//! Compares the pages that a table purges with pages that the tests compute from the blocks.

use std::collections::{BTreeMap, BTreeSet};

use obmalloc::{BlockPtr, HeaderRule, Heap, Pools4K};
use raw_mem::{Malloc, MmapArenas};
use testkit::failing::{FailingAlloc, Faults, Plan};

use super::*;
use crate::ThreadGeometry;

type TestHeap<G> = Heap<MmapArenas, Malloc, G>;

const BLOCKS: usize = if cfg!(miri) { 500 } else { 8000 };

const IN_USE: u8 = 0xa5;

const PURGED_BYTE: u8 = 0x5a;

const UNIT: usize = ThreadGeometry::SIZES.pool_size;

fn random(state: &mut u64, limit: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 16) as usize % limit
}

type BlocksOf = BTreeMap<usize, (NonNull<u8>, usize)>;

fn alloc<G: Geometry>(
    heap: &mut TestHeap<G>,
    count: usize,
    mut size: impl FnMut() -> usize,
) -> BlocksOf {
    let blocks = (0..count).map(|_| {
        let class = SizeClass::of(size()).unwrap();
        let start = heap.alloc(class).unwrap().into_start();
        // SAFETY: we own the block, which has that many bytes.
        unsafe { start.write_bytes(IN_USE, class.block_size()) };
        (start.addr().get(), (start, class.block_size()))
    });
    blocks.collect()
}

fn free<G: Geometry>(heap: &mut TestHeap<G>, block: NonNull<u8>) {
    // SAFETY: the tests free each block only once, after the table has given up the block.
    unsafe { heap.free(BlockPtr::from_start(block)) };
}

/// Adds blocks to a table, and returns the addresses of the pages that it purges.
fn wait_and_purge<G: Geometry, A: MemAlloc, const PAGES: usize>(
    table: &mut WaitingPools<G, PAGES>,
    lower: &A,
    blocks: impl IntoIterator<Item = NonNull<u8>>,
) -> BTreeSet<usize> {
    for block in blocks {
        assert!(table.reserve(1, lower));
        // SAFETY: the test owns the block, and gives it up.
        unsafe { table.add(block) };
    }
    let mut purged = BTreeSet::new();
    table.purge(|start, len| {
        let address = start.addr().get();
        assert!(address.is_multiple_of(PAGE) && len.is_multiple_of(PAGE) && len > 0);
        assert_eq!(address / G::SIZES.arena_size, (address + len - 1) / G::SIZES.arena_size);
        // SAFETY: the table owns every byte of the range, and does not read it again.
        unsafe { start.write_bytes(PURGED_BYTE, len) };
        for page in (address..address + len).step_by(PAGE) {
            assert!(purged.insert(page), "page {page:#x} was purged twice");
        }
    });
    purged
}

/// Returns the pages that are covered by waiting blocks and by unused bytes at the ends of pools.
fn covered<G: Geometry>(waiting: &BlocksOf, blocks: BlockStart) -> BTreeSet<usize> {
    let shifted = G::RULES.headers == HeaderRule::InArena && blocks == BlockStart::AsInCPython;
    let mut bytes = BTreeMap::<usize, usize>::new();
    for (&address, &(_, size)) in waiting {
        let pool_end = (address / G::SIZES.pool_size + 1) * G::SIZES.pool_size;
        let end = if address + 2 * size > pool_end { pool_end } else { address + size };
        let is_first = address % G::SIZES.pool_size == 48
            || address % G::SIZES.arena_size == Shape::<G>::BEFORE_FIRST_POOL + 48;
        let unused = if shifted && is_first { 48 } else { 0 };
        let begin = address - unused;
        let parts = (begin..end).step_by(16);
        parts.for_each(|part| *bytes.entry(part / PAGE * PAGE).or_default() += 16);
    }
    bytes.into_iter().filter(|(_, bytes)| *bytes == PAGE).map(|(page, _)| page).collect()
}

/// Returns the pages that consist only of waiting blocks and unused ends of pools with several
/// units.
///
/// `blocks` contains all blocks that the test allocated, in the order of their addresses. The
/// function walks over these blocks to find where each pool begins and ends. The first block lies
/// at the start of a pool, and its size class determines where this pool ends. The first block
/// beyond that end lies at the start of the next pool.
fn covered_in_medium(waiting: &BlocksOf, blocks: &BlocksOf) -> BTreeSet<usize> {
    let mut bytes = BTreeMap::<usize, usize>::new();
    // A pool begins with a block at the start of a unit, and blocks of its size follow.
    let mut pool = 0..0;
    for (&address, &(_, size)) in blocks {
        if !pool.contains(&address) {
            assert!(address.is_multiple_of(UNIT), "the first block of a pool");
            let class = SizeClass::<ThreadGeometry>::of(size).unwrap();
            pool = address..address + class.pool_bytes();
        }
        let is_last = address + 2 * size > pool.end;
        let end = if is_last { pool.end } else { address + size };
        let mut part = address;
        while waiting.contains_key(&address) && part < end {
            let next = end.min((part / PAGE + 1) * PAGE);
            *bytes.entry(part / PAGE * PAGE).or_default() += next - part;
            part = next;
        }
    }
    bytes.into_iter().filter(|(_, bytes)| *bytes == PAGE).map(|(page, _)| page).collect()
}

/// Returns the classes whose pools a table of `MEDIUM` pages can describe. Some of these classes
/// are spans.
fn medium_classes() -> impl Iterator<Item = SizeClass<ThreadGeometry>> {
    let fits = |class: &SizeClass<_>| !class.is_linked() && class.pool_bytes() <= MEDIUM * PAGE;
    SizeClass::<ThreadGeometry>::all().filter(fits)
}

/// Adds blocks to a table in random order. About `share` of 256 blocks are added.
fn rounds<G: Geometry>(seed: u64, share: usize, blocks: BlockStart) {
    let mut state = seed;
    let sizes: Vec<_> = (0..4).map(|_| 1 + random(&mut state, G::SIZES.small_threshold)).collect();
    let heap = heap::<G>(blocks);
    rounds_with::<G, SMALL>(state, share, heap, &sizes, BLOCKS, |waiting, _| {
        covered::<G>(waiting, blocks)
    });
}

/// Does the same as [`rounds`] with blocks above the small threshold, in pools of several units.
fn medium_rounds(seed: u64, share: usize, blocks: BlockStart) {
    let mut state = seed;
    let sizes: Vec<_> = (0..4).map(|_| 1025 + random(&mut state, UNIT / 2 - 1024)).collect();
    let count = BLOCKS / 8;
    let heap = heap::<ThreadGeometry>(blocks);
    rounds_with::<ThreadGeometry, MEDIUM>(state, share, heap, &sizes, count, covered_in_medium);
}

fn heap<G: Geometry>(blocks: BlockStart) -> TestHeap<G> {
    let mut heap = TestHeap::<G>::with_geometry(MmapArenas::new(), Malloc);
    if blocks == BlockStart::AsInCPython {
        heap.begin_blocks_as_in_cpython();
    }
    heap
}

fn rounds_with<G: Geometry, const PAGES: usize>(
    seed: u64,
    share: usize,
    mut heap: TestHeap<G>,
    sizes: &[usize],
    count: usize,
    covered: impl Fn(&BlocksOf, &BlocksOf) -> BTreeSet<usize>,
) {
    let mut state = seed;
    let mut in_use = alloc(&mut heap, count, || sizes[random(&mut state, sizes.len())]);
    let all = in_use.clone();
    let mut table = WaitingPools::<G, PAGES>::new(&Malloc).unwrap();
    let (mut waiting, mut purged) = (BlocksOf::new(), BTreeSet::new());
    // Blocks on the same page usually wait together, because otherwise no page would be purged.
    let waits =
        |address: usize| address / (2 * PAGE) % 256 < share || address / 16 % 256 < share / 2;
    for round in 0..4 {
        let mut now: Vec<_> = in_use
            .iter()
            .filter(|(address, _)| waits(**address) && (*address / 16) % 4 == round)
            .map(|(address, block)| (*address, *block))
            .collect();
        for at in (1..now.len()).rev() {
            now.swap(at, random(&mut state, at + 1));
        }
        for (address, _) in &now {
            in_use.remove(address);
        }
        waiting.extend(now.iter().copied());
        purged.append(&mut wait_and_purge(&mut table, &Malloc, now.iter().map(|(_, (b, _))| *b)));
        assert_eq!(purged, covered(&waiting, &all), "seed {seed}, round {round}");
    }
    for (start, size) in in_use.values() {
        // SAFETY: the block is in use, and its bytes were written.
        let bytes = unsafe { slice::from_raw_parts(start.as_ptr(), *size) };
        assert!(bytes.iter().all(|byte| *byte == IN_USE), "a block in use was purged");
    }
    table.unload(&Malloc, |block| {
        assert!(waiting.remove(&block.addr().get()).is_some(), "{block:p} did not wait");
        free(&mut heap, block);
    });
    assert!(waiting.is_empty(), "{} blocks are lost", waiting.len());
    heap.check_invariants();
    in_use.into_values().for_each(|(block, _)| free(&mut heap, block));
    assert_eq!(heap.stats().bytes.in_use, 0);
}

#[test]
fn exactly_the_pages_of_waiting_blocks_are_purged_and_every_block_is_visited_once() {
    let seeds = if cfg!(miri) { 1 } else { 12 };
    for seed in 1..=seeds {
        for share in [0, 64, 200, 256] {
            rounds::<ThreadGeometry>(seed, share, BlockStart::Aligned);
            rounds::<ThreadGeometry>(seed, share, BlockStart::AsInCPython);
        }
    }
}

#[test]
fn exactly_the_pages_of_waiting_blocks_in_pools_of_several_units_are_purged() {
    let seeds = if cfg!(miri) { 1 } else { 12 };
    for seed in 1..=seeds {
        for share in [0, 64, 200, 256] {
            medium_rounds(seed, share, BlockStart::Aligned);
            medium_rounds(seed, share, BlockStart::AsInCPython);
        }
    }
}

#[test]
fn waiting_blocks_of_every_medium_class_are_purged_and_visited() {
    for class in medium_classes() {
        let (sizes, count) = ([class.block_size()], 5 * class.capacity() / 2);
        for share in [128, 256] {
            let heap = heap::<ThreadGeometry>(BlockStart::Aligned);
            rounds_with::<ThreadGeometry, MEDIUM>(1, share, heap, &sizes, count, covered_in_medium);
        }
    }
}

#[test]
fn all_pages_of_a_full_pool_of_several_units_are_purged() {
    for class in medium_classes() {
        let mut heap = heap::<ThreadGeometry>(BlockStart::Aligned);
        let blocks = alloc(&mut heap, class.capacity(), || class.block_size());
        let mut table = WaitingPools::<ThreadGeometry, MEDIUM>::new(&Malloc).unwrap();
        let starts = blocks.values().map(|(start, _)| *start);
        let purged = wait_and_purge(&mut table, &Malloc, starts);
        assert_eq!(purged.len() * PAGE, class.pool_bytes(), "{class:?}");
        table.unload(&Malloc, |block| free(&mut heap, block));
        assert_eq!(heap.stats().bytes.in_use, 0);
    }
}

#[test]
fn a_page_with_a_header_is_not_purged() {
    rounds::<obmalloc::Pools16K>(3, 256, BlockStart::Aligned);
    rounds::<Pools4K>(3, 256, BlockStart::Aligned);
    let mut heap = TestHeap::<Pools4K>::with_geometry(MmapArenas::new(), Malloc);
    let blocks = alloc(&mut heap, 1000, || 64);
    let mut table = WaitingPools::<Pools4K>::new(&Malloc).unwrap();
    let starts = blocks.values().map(|(start, _)| *start);
    assert!(wait_and_purge(&mut table, &Malloc, starts).is_empty());
    table.unload(&Malloc, |block| free(&mut heap, block));
}

#[test]
fn a_page_with_memory_that_was_never_handed_out_is_not_purged() {
    let mut heap = TestHeap::<ThreadGeometry>::with_geometry(MmapArenas::new(), Malloc);
    // The blocks fill only part of a page.
    let blocks = alloc(&mut heap, 60, || 64);
    let mut table = WaitingPools::<ThreadGeometry>::new(&Malloc).unwrap();
    let starts = blocks.values().map(|(start, _)| *start);
    assert!(wait_and_purge(&mut table, &Malloc, starts).is_empty());
    table.unload(&Malloc, |block| free(&mut heap, block));
    heap.check_invariants();
}

#[test]
fn a_table_that_cannot_grow_does_not_change() {
    let faults = Faults::default();
    let lower = FailingAlloc::new(Malloc, faults.clone());
    let mut heap = TestHeap::<ThreadGeometry>::with_geometry(MmapArenas::new(), Malloc);
    let mut blocks = alloc(&mut heap, 3000, || 512);
    let mut table = WaitingPools::<ThreadGeometry>::new(&lower).unwrap();
    faults.restart(Plan::From(1));
    let mut refused = 0;
    for (start, _) in blocks.values() {
        if table.reserve(1, &lower) {
            // SAFETY: the test owns the block, and gives it up.
            unsafe { table.add(*start) };
        } else {
            refused += 1;
        }
    }
    assert!(refused > 0 && refused < 3000);
    table.unload(&lower, |block| {
        blocks.remove(&block.addr().get()).expect("it waited");
        free(&mut heap, block);
    });
    assert_eq!(blocks.len(), refused);
    blocks.into_values().for_each(|(block, _)| free(&mut heap, block));
    assert!(WaitingPools::<ThreadGeometry>::new(&lower).is_none());
}

#[test]
fn a_new_table_has_no_entries_in_use() {
    let mut table = WaitingPools::<ThreadGeometry>::new(&Malloc).unwrap();
    assert_eq!((table.head().used, table.head().capacity), (0, FEWEST_ENTRIES));
    table.unload(&Malloc, |_| unreachable!());
}

#[test]
fn a_table_is_a_node_but_not_a_batch() {
    let table = WaitingPools::<ThreadGeometry>::new(&Malloc).unwrap();
    let node = table.into_node();
    // SAFETY: `into_node` returned the head node of a table, which nothing else refers to.
    assert_eq!(unsafe { Batch::kind(node) }, crate::freed::batch::Kind::TableOf(SMALL));
    // SAFETY: as above.
    unsafe { WaitingPools::<ThreadGeometry>::from_node(node) }.unload(&Malloc, |_| unreachable!());
}

#[test]
fn pools_that_an_entry_cannot_describe_are_refused() {
    assert!(WaitingPools::<obmalloc::Tiny>::new(&Malloc).is_none());
}
