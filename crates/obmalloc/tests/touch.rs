//! Memory is not touched before it is needed: what the heap has not handed out, and needs for
//! nothing else, stands as the source gave it.
//!
//! The source fills each arena with a pattern. Carving may write to the page of the block that it
//! hands out and to the header of its pool, and to nothing else: a page that holds neither a
//! header of a pool in use nor a block that was handed out must show the pattern to the last byte.

#[macro_use]
mod common;

use std::{collections::BTreeSet, ptr::NonNull};

use obmalloc::{Geometry, HeaderRule, Heap, SizeClass};
use raw_mem::{ArenaSize, ArenaSource, Malloc, MapError, MmapArenas};
use testkit::place::ArenaLog;

/// What an untouched byte looks like.
const UNTOUCHED: u8 = 0xa5;

/// The grain of the promise: no system has smaller pages.
const PAGE: usize = 4096;

/// Arenas filled with the pattern.
struct Patterned {
    source: MmapArenas,
    log: ArenaLog,
}

// SAFETY: the memory is that of the source below.
unsafe impl ArenaSource for Patterned {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        let arena = self.source.map(size)?;
        // SAFETY: the arena is mapped, and nobody's yet.
        unsafe { arena.write_bytes(UNTOUCHED, size.bytes()) };
        arena.as_ptr().expose_provenance();
        self.log.map(arena);
        Ok(arena)
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        self.log.unmap(arena);
        // SAFETY: the caller's promise.
        unsafe { self.source.unmap(arena, size) }
    }
}

/// A heap of patterned arenas, and the pages that it may have touched.
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
        let block = self.heap.alloc(class).expect("there is memory").into_start().addr().get();
        let pages = block / PAGE..=(block + class.block_size() - 1) / PAGE;
        self.needed.extend(pages);
        self.needed.insert(header_of::<G>(block) / PAGE);
    }

    /// The pages of the arenas that are not needed, but touched.
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

/// The header of the pool that holds `block`.
fn header_of<G: Geometry>(block: usize) -> usize {
    let pool = block / G::SIZES.pool_size * G::SIZES.pool_size;
    match G::RULES.headers {
        HeaderRule::InPools => pool,
        // 40 bytes each, at the beginning of the arena.
        HeaderRule::InArena => {
            let arena = block / G::SIZES.arena_size * G::SIZES.arena_size;
            arena + 40 * ((block - arena) / G::SIZES.pool_size)
        }
    }
}

/// Bytes of an arena that is mapped.
fn bytes<'a>(start: usize, len: usize) -> &'a [u8] {
    // SAFETY: they lie in one mapped arena, all of which the source has written; its provenance
    // was exposed then. The heap is not called while they are looked at.
    unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(start), len) }
}

fn only_pages_with_a_block_handed_out_are_touched<G: Geometry>() {
    for class in SizeClass::<G>::all() {
        let mut watched = Watched::<G>::new();
        // A pool and a half: a pool is full, and another one was begun.
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
    for class in SizeClass::<G>::all() {
        watched.alloc(class);
        assert_eq!(watched.touched_in_vain(), [0; 0], "{class:?}");
    }
    // Where pools are smaller than pages, the pool is the grain.
    let begun = SizeClass::<G>::all().count();
    let virgin = watched.log.arenas().into_iter().flat_map(|(number, arena)| {
        let pools = G::SIZES.arena_size / G::SIZES.pool_size;
        (0..pools)
            .filter(move |pool| number * pools + pool >= begun)
            .map(move |pool| arena + pool * G::SIZES.pool_size)
    });
    for pool in virgin {
        assert!(bytes(pool, G::SIZES.pool_size).iter().all(|&byte| byte == UNTOUCHED));
    }
}

fn an_emptied_pool_is_used_before_a_virgin_one_is_touched<G: Geometry>() {
    let mut watched = Watched::<G>::new();
    let [one, other, last] = [1, G::SIZES.alignment + 1, G::SIZES.small_threshold]
        .map(|size| SizeClass::of(size).expect("a small size"));
    watched.alloc(last);
    let block = watched.heap.alloc(one).expect("there is memory");
    // SAFETY: the block came from this heap just now.
    unsafe { watched.heap.free(block) };
    watched.alloc(other);
    let third = watched.log.arenas()[&0] + 2 * G::SIZES.pool_size;
    assert!(bytes(third, G::SIZES.pool_size).iter().all(|&byte| byte == UNTOUCHED));
}

/// Of no profile where emptied pools of other classes rest.
mod emptied {
    use super::an_emptied_pool_is_used_before_a_virgin_one_is_touched;

    for_every_shape_of_cpython!(an_emptied_pool_is_used_before_a_virgin_one_is_touched);
}

for_every_profile!(
    only_pages_with_a_block_handed_out_are_touched,
    classes_side_by_side_touch_only_their_own_pools,
);
