//! The figures of large blocks stay right while a thread only frees memory.

use std::{hint::black_box, thread, time::Duration};

use global_alloc::{Kind, ObMalloc};

#[global_allocator]
static GLOBAL: ObMalloc = ObMalloc::new();

const DECAY: Duration = Duration::from_millis(400);

/// Regression test: the blocks that the heap had released in a sweep during a free were still
/// subtracted from those in use.
#[test]
fn large_blocks_in_use_are_counted_after_a_free_has_released_retained_ones() {
    GLOBAL.set_decay(Some(DECAY));
    let large = || (0..8).map(|_| vec![1_u8; 1 << 20]).collect::<Vec<_>>();
    let small: Vec<Box<[u8; 1000]>> = (0..20_000).map(|_| Box::new([1; 1000])).collect();
    let kept = large();
    // The heap retains blocks only if the program uses such blocks repeatedly.
    (0..4).for_each(|_| drop(black_box(large())));
    let before = GLOBAL.stats();
    assert!(before.retained_by_heaps >= 8 << 20);
    for (number, block) in small.into_iter().enumerate() {
        drop(black_box(block));
        if number % 1000 == 0 {
            thread::sleep(DECAY / 4);
        }
    }
    let after = GLOBAL.stats();
    assert!(after.retained_by_heaps < 8 << 20, "a sweep releases what is no longer needed");
    assert_eq!(after.of_kind(Kind::Large).blocks, before.of_kind(Kind::Large).blocks);
    drop(kept);
}
