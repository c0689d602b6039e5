//! If the contents of an arena are known to be zero, allocating a zeroed block in it writes
//! nothing.
#![cfg(target_os = "linux")]

use std::{fs::File, os::unix::fs::FileExt, ptr::NonNull, slice};

use obmalloc::{Heap, Native, SizeClass};
use raw_mem::{ArenaSource, Malloc, MmapArenas, ReservedArenas, RetainingArenas};

const PAGE: usize = 4096;
const SIZE: usize = 256 << 10;

/// Returns the number of whole pages in the `len` bytes at `start` that are in memory.
fn touched_pages(start: NonNull<u8>, len: usize) -> usize {
    let pagemap = File::open("/proc/self/pagemap").unwrap();
    let address = start.addr().get();
    let pages = address.div_ceil(PAGE)..(address + len) / PAGE;
    let is_present = |page: &usize| {
        let mut entry = [0; 8];
        pagemap.read_exact_at(&mut entry, *page as u64 * 8).unwrap();
        u64::from_ne_bytes(entry) >> 63 != 0
    };
    pages.filter(is_present).count()
}

fn bytes<'a>(start: NonNull<u8>) -> &'a mut [u8] {
    // SAFETY: the block has that many initialised bytes, and the test does not free it while the
    // slice is in use.
    unsafe { slice::from_raw_parts_mut(start.as_ptr(), SIZE) }
}

fn a_new_zeroed_block_is_not_touched<S: ArenaSource>(source: S) {
    let mut heap = Heap::<_, _, Native>::with_geometry(source, Malloc);
    let class = SizeClass::of(SIZE).unwrap();
    for _ in 0..3 {
        let block = heap.alloc_zeroed(class, SIZE).unwrap().into_start();
        assert_eq!(touched_pages(block, SIZE), 0);
        assert!(bytes(block).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_zeroed_block_of_a_new_arena_is_not_touched() {
    a_new_zeroed_block_is_not_touched(MmapArenas::new());
    a_new_zeroed_block_is_not_touched(ReservedArenas::new(MmapArenas::new()));
    a_new_zeroed_block_is_not_touched(RetainingArenas::new(ReservedArenas::new(MmapArenas::new())));
}

#[test]
fn a_zeroed_block_of_a_retained_arena_is_zero() {
    let mut source = RetainingArenas::new(ReservedArenas::new(MmapArenas::new()));
    for turn in 0..4 {
        let mut heap = Heap::<_, _, Native>::with_geometry(&mut source, Malloc);
        let blocks: Vec<_> = (0..9)
            .map(|_| heap.alloc_zeroed(SizeClass::of(SIZE).unwrap(), SIZE).unwrap().into_start())
            .collect();
        for block in &blocks {
            assert!(bytes(*block).iter().all(|byte| *byte == 0), "turn {turn}");
            bytes(*block).fill(7);
        }
        // The heap returns its arenas to the source when it is dropped.
        drop(heap);
        assert_eq!(source.retained() > 0, turn > 0);
    }
}
