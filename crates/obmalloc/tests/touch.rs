//! A page without a header or an allocated block must keep the pattern that fills new arenas.

#[macro_use]
mod common;

use std::{collections::BTreeSet, ptr::NonNull};

use obmalloc::{BlockPtr, Geometry, HeaderRule, Heap, Native, SizeClass};
use raw_mem::{ArenaSize, ArenaSource, Malloc, MapError, MmapArenas};
use testkit::place::ArenaLog;

const UNTOUCHED: u8 = 0xa5;

const PAGE: usize = 4096;

struct Patterned {
    source: MmapArenas,
    log: ArenaLog,
}

// SAFETY: all memory comes from the inner source.
unsafe impl ArenaSource for Patterned {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        let arena = self.source.map(size)?;
        // SAFETY: the arena was just mapped with this size, and nothing else uses it yet.
        unsafe { arena.write_bytes(UNTOUCHED, size.bytes()) };
        arena.as_ptr().expose_provenance();
        self.log.map(arena);
        Ok(arena)
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        self.log.unmap(arena);
        // SAFETY: `map` returned `arena` with this size, and it is unused (contract of `unmap`).
        unsafe { self.source.unmap(arena, size) }
    }
}

/// A heap with patterned arenas, and the numbers of the pages that the heap may touch.
struct Watched<G: Geometry> {
    heap: Heap<Patterned, Malloc, G>,
    log: ArenaLog,
    needed: BTreeSet<usize>,
}

impl<G: Geometry> Watched<G> {
    fn new() -> Self {
        let log = ArenaLog::default();
        let source = Patterned { source: MmapArenas::new(), log: log.clone() };
        Self { heap: Heap::with_geometry(source, Malloc), log, needed: BTreeSet::new() }
    }

    fn alloc(&mut self, class: SizeClass<G>) {
        let block = self.heap.alloc(class).expect("memory can be had").into_start().addr().get();
        let pages = block / PAGE..=(block + class.block_size() - 1) / PAGE;
        self.needed.extend(pages);
        self.needed.insert(header_of::<G>(block) / PAGE);
    }

    fn touched_in_vain(&self) -> Vec<usize> {
        let arenas = self.log.arenas().into_values();
        let pages = arenas.flat_map(|arena| (arena..arena + G::SIZES.arena_size).step_by(PAGE));
        pages
            .filter(|page| !self.needed.contains(&(page / PAGE)))
            .filter(|&page| {
                bytes(page, PAGE.min(G::SIZES.arena_size)).iter().any(|&b| b != UNTOUCHED)
            })
            .collect()
    }
}

fn header_of<G: Geometry>(block: usize) -> usize {
    let pool = block / G::SIZES.pool_size * G::SIZES.pool_size;
    match G::RULES.headers {
        HeaderRule::InPools => pool,
        HeaderRule::InArena => {
            let arena = block / G::SIZES.arena_size * G::SIZES.arena_size;
            arena + 40 * ((block - arena) / G::SIZES.pool_size)
        }
    }
}

fn bytes<'a>(start: usize, len: usize) -> &'a [u8] {
    // SAFETY: the source initialised and exposed the arena, and the heap is not called while the
    // slice is in use.
    unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(start), len) }
}

fn only_pages_with_an_allocated_block_are_touched<G: Geometry>() {
    for class in SizeClass::<G>::all() {
        let mut watched = Watched::<G>::new();
        // One pool becomes full, and another one is half full.
        let blocks = G::SIZES.pool_size / class.block_size() * 3 / 2;
        for nth in 0..blocks {
            watched.alloc(class);
            if nth < 3 || nth.is_multiple_of(blocks.div_ceil(16)) {
                assert_eq!(watched.touched_in_vain(), [0; 0], "{nth} blocks of {class:?}");
            }
        }
        assert_eq!(watched.touched_in_vain(), [0; 0], "{blocks} blocks of {class:?}");
    }
}

fn classes_side_by_side_touch_only_their_own_pools<G: Geometry>() {
    let mut watched = Watched::<G>::new();
    let small = || SizeClass::<G>::all().filter(|class| class.is_small());
    for class in small() {
        watched.alloc(class);
        assert_eq!(watched.touched_in_vain(), [0; 0], "{class:?}");
    }
    // A pool may be smaller than a page, so we check each untouched pool.
    let begun = small().count();
    let untouched = watched.log.arenas().into_iter().flat_map(|(number, arena)| {
        let pools = G::SIZES.arena_size / G::SIZES.pool_size;
        (0..pools)
            .filter(move |pool| number * pools + pool >= begun)
            .map(move |pool| arena + pool * G::SIZES.pool_size)
    });
    for pool in untouched {
        assert!(bytes(pool, G::SIZES.pool_size).iter().all(|&byte| byte == UNTOUCHED));
    }
}

fn an_emptied_pool_is_reused_before_an_untouched_one<G: Geometry>() {
    let mut watched = Watched::<G>::new();
    let [one, other, last] = [1, G::SIZES.alignment + 1, G::SIZES.small_threshold]
        .map(|size| SizeClass::of(size).expect("a small size"));
    watched.alloc(last);
    let block = watched.heap.alloc(one).expect("memory can be had");
    // SAFETY: `block` came from this heap and is not used again.
    unsafe { watched.heap.free(block) };
    watched.alloc(other);
    let third = watched.log.arenas()[&0] + 2 * G::SIZES.pool_size;
    assert!(bytes(third, G::SIZES.pool_size).iter().all(|&byte| byte == UNTOUCHED));
}

/// Tests only for the geometries that return an emptied pool to its arena.
mod emptied {
    use super::an_emptied_pool_is_reused_before_an_untouched_one;

    for_every_shape_of_cpython!(an_emptied_pool_is_reused_before_an_untouched_one);
}

for_every_profile!(
    only_pages_with_an_allocated_block_are_touched,
    classes_side_by_side_touch_only_their_own_pools,
);

/// A heap that followed a link in such a block would read the pattern as an address.
#[test]
fn a_free_block_above_1_kib_is_neither_read_nor_written() {
    // In debug builds, the heap overwrites this part of a freed block to make misuse fail.
    let overwritten = if cfg!(debug_assertions) { 512 } else { 0 };
    for size in [1100, 2000, 4096, 8000] {
        let mut heap = Heap::<_, _, Native>::with_geometry(MmapArenas::new(), Malloc);
        let class = SizeClass::of(size).unwrap();
        assert!(!class.is_linked() && !class.is_span());
        let fill = |block: NonNull<u8>| {
            // SAFETY: the block has that many bytes. Its pool has a block in use, so it is mapped.
            unsafe { block.write_bytes(UNTOUCHED, class.block_size()) };
        };
        let blocks: Vec<_> = (0..100).map(|_| heap.alloc(class).unwrap().into_start()).collect();
        for (nth, block) in blocks.iter().enumerate() {
            block.as_ptr().expose_provenance();
            if nth % 7 != 0 {
                // SAFETY: the block came from this heap, and is freed once.
                unsafe { heap.free(BlockPtr::from_start(*block)) };
            }
            fill(*block);
        }
        heap.check_invariants();
        let mut live = 0;
        heap.for_each_block(|_| live += 1);
        assert_eq!(live, 15);
        let again: Vec<_> = (0..50).map(|_| heap.alloc(class).unwrap().into_start()).collect();
        heap.check_invariants();
        assert!(again.iter().any(|block| blocks.contains(block)));
        for block in &blocks {
            let kept = overwritten..class.block_size();
            let found = bytes(block.addr().get() + kept.start, kept.len());
            assert!(found.iter().all(|byte| *byte == UNTOUCHED), "{size} bytes");
        }
    }
}
