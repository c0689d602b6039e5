//! Tests each rule of the model with a case that can be worked out by hand.

use super::*;
use crate::failing::Plan;

/// Pools of seven blocks of 512 bytes, and arenas of 64 pools.
const RULES: Rules = Rules::POOLS_4K;
const POOL: usize = 7;
const ARENA: usize = 64 * POOL;

/// The place of a block that no pool serves.
const BELOW: Option<Spot> = None;

fn heap(rules: Rules) -> Reference {
    Reference::new(rules, Faults::default())
}

fn fill(heap: &mut Reference, blocks: usize) -> Vec<Option<Spot>> {
    (0..blocks).map(|_| heap.malloc(512).unwrap()).collect()
}

fn spot(block: Option<Spot>) -> (usize, usize, usize) {
    let spot = block.unwrap();
    (spot.arena, spot.pool, spot.offset)
}

fn drain(heap: &mut Reference, blocks: &[Option<Spot>]) {
    blocks.iter().for_each(|&block| heap.free(Some(block)));
}

#[test]
fn blocks_and_pools_are_carved_in_ascending_order() {
    let blocks = fill(&mut heap(RULES), ARENA + 1);
    assert_eq!(spot(blocks[0]), (0, 0, 48));
    assert_eq!(spot(blocks[1]), (0, 0, 560));
    assert_eq!(spot(blocks[POOL]), (0, 1, 48));
    assert_eq!(spot(blocks[ARENA]), (1, 0, 48));
}

#[test]
fn a_full_pool_serves_next_when_one_of_its_blocks_is_freed() {
    let mut heap = heap(RULES);
    let blocks = fill(&mut heap, 2 * POOL + 1);
    drain(&mut heap, &[blocks[POOL + 3], blocks[2]]);
    assert_eq!(heap.state().used[31], [(0, 0), (0, 1), (0, 2)]);
    assert_eq!(heap.malloc(512), Some(blocks[2]));
    assert_eq!(heap.malloc(512), Some(blocks[POOL + 3]));
}

#[test]
fn an_emptied_pool_keeps_its_free_list_unless_another_class_takes_it() {
    let mut heap = heap(RULES);
    let blocks = fill(&mut heap, 3);
    drain(&mut heap, &[blocks[1], blocks[2], blocks[0]]);
    assert_eq!(heap.malloc(512), Some(blocks[0]));
    assert_eq!(heap.malloc(512), Some(blocks[2]));
    drain(&mut heap, &[blocks[0], blocks[2]]);
    let first = heap.malloc(256).unwrap();
    let second = heap.malloc(256).unwrap();
    assert_eq!([spot(first), spot(second)], [(0, 0, 48), (0, 0, 304)]);
}

#[test]
fn the_fullest_arena_serves_first() {
    let mut heap = heap(RULES);
    let blocks = fill(&mut heap, 3 * ARENA);
    drain(&mut heap, &blocks[..2 * POOL]);
    drain(&mut heap, &blocks[ARENA..ARENA + POOL]);
    assert_eq!(spot(heap.malloc(256).unwrap()), (1, 0, 48));
}

#[test]
fn a_free_arena_is_unmapped_unless_the_rules_retain_the_last_one() {
    for (rules, left) in [(Rules::POOLS_4K, 1), (Rules::POOLS_4K_GIVE_BACK_ALL, 0)] {
        let mut heap = heap(rules);
        let blocks = fill(&mut heap, 3 * ARENA);
        drain(&mut heap, &blocks);
        assert_eq!(heap.mapped(), left);
        let figures = heap.figures();
        assert_eq!(figures.get("# arenas reclaimed"), 3 - left);
        assert_eq!(figures.get("Total"), left * rules.arena_size);
    }
}

#[test]
fn the_only_free_arena_is_unmapped_if_it_is_not_the_last_usable_one() {
    let mut heap = heap(RULES);
    let blocks = fill(&mut heap, 2 * ARENA);
    // The second arena keeps a live block, so it stays after the first one in the list of usable
    // arenas.
    drain(&mut heap, &blocks[ARENA + 1..]);
    drain(&mut heap, &blocks[..ARENA]);
    assert_eq!(heap.state().arenas.keys().copied().collect::<Vec<_>>(), [1]);
    drain(&mut heap, &blocks[ARENA..=ARENA]);
    assert_eq!(heap.mapped(), 1);
}

#[test]
fn the_descriptor_released_last_is_used_first() {
    let mut heap = heap(Rules::POOLS_4K_GIVE_BACK_ALL);
    let blocks = fill(&mut heap, 3 * ARENA);
    drain(&mut heap, &blocks[..2 * ARENA]);
    fill(&mut heap, 2 * ARENA);
    let descriptors: Vec<_> =
        heap.state().arenas.iter().map(|(&number, arena)| (number, arena.descriptor)).collect();
    assert_eq!(descriptors, [(2, 2), (3, 1), (4, 0)]);
}

#[test]
fn a_reallocation_allocates_the_new_block_before_it_frees_the_old() {
    let mut heap = heap(RULES);
    let block = heap.malloc(16).unwrap();
    let moved = heap.realloc(Some(block), 5).unwrap();
    assert_eq!(spot(moved), (0, 0, 64));
    assert_eq!(heap.malloc(16), Some(block));
    assert_eq!(heap.realloc(Some(moved), 0), Some(BELOW));
    assert_eq!(heap.realloc(Some(BELOW), 16), Some(BELOW));
}

#[test]
fn a_request_without_an_arena_goes_to_the_layer_below_and_the_next_one_asks_again() {
    let mut heap = Reference::new(RULES, Faults::new(Plan::Nth(1)));
    assert_eq!(heap.malloc(16), Some(BELOW));
    assert_eq!(spot(heap.malloc(16).unwrap()), (0, 0, 48));
}

#[test]
fn figures_are_parsed_from_the_text_that_cpython_prints() {
    let text = "\
Small block threshold = 512, in 32 size classes.

class   size   num pools   blocks in use  avail blocks
-----   ----   ---------   -------------  ------------
    0     16           1               2          1019

# arenas allocated total           =                    2
# arenas reclaimed                 =                    1
# arenas highwater mark            =                    2
# arenas allocated current         =                    1
1 arenas * 1048576 bytes/arena     =            1,048,576

# bytes in allocated blocks        =                   32
# bytes in available blocks        =               16,304
63 unused pools * 16384 bytes      =            1,032,192
# bytes lost to pool headers       =                   48
# bytes lost to quantization       =                    0
# bytes lost to arena alignment    =                    0
Total                              =            1,048,576

arena map counts
# arena map mid nodes              =                    1
Total                              =              655,360
";
    let figures = Figures::parse(text);
    assert_eq!(figures.classes, [[0, 16, 1, 2, 1019]]);
    assert_eq!(figures.get("# arenas allocated total"), 2);
    assert_eq!(figures.get("63 unused pools * 16384 bytes"), 1_032_192);
    assert_eq!(figures.get("Total"), 1_048_576);
    let mut heap = heap(Rules::POOLS_16K);
    let blocks: Vec<_> = (0..64 * 31 + 2).map(|_| heap.malloc(512).unwrap()).collect();
    drain(&mut heap, &blocks);
    heap.malloc(16);
    heap.malloc(16);
    assert_eq!(heap.figures(), figures);
}
