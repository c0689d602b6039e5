//! A heap in a buffer, without an operating system or another allocator.

use core::mem::MaybeUninit;

use obmalloc::{
    Heap, SizeClass, Tiny,
    raw_mem::{Bump, FixedRegion},
};

pub(crate) fn main() {
    let mut records = [MaybeUninit::uninit(); 4096];
    let mut buffer = [MaybeUninit::uninit(); 8 * 1024];
    let mut heap = Heap::<_, _, Tiny>::with_geometry(FixedRegion::new(&mut buffer), Bump::new(&mut records));

    // Allocates many more blocks than fit into the buffer at the same time.
    for round in 0..100 {
        let blocks = [16, 30, 48, 64].map(|size| {
            let class = SizeClass::of(size).expect("a small size");
            let block = heap.alloc(class).expect("the buffer has room");
            // SAFETY: the block has at least `size` bytes and is in use by this program alone.
            unsafe { block.start().write_bytes(round, size) };
            block
        });
        heap.check_invariants();
        for block in blocks {
            // SAFETY: the block came from this heap and is not used again.
            unsafe { heap.free(block) };
        }
    }
    let in_use: usize = heap.stats().classes().iter().map(|class| class.in_use).sum();
    assert_eq!(in_use, 0);
}
