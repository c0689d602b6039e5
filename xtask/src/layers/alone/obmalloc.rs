//! A heap in a buffer: no operating system, no other allocator.

use core::mem::MaybeUninit;

use obmalloc::{GilHeld, Heap, KnownArenas, Pymalloc, Tiny};
pub(crate) use raw_mem::MemAlloc;
use raw_mem::FixedRegion;

use crate::bump::Bump;

pub(crate) fn main() {
    let mut records = [0; 1024];
    let records = Bump::new(&mut records);
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let arenas = KnownArenas::<_, _, Tiny>::new(FixedRegion::new(&mut buffer), &records);
    // SAFETY: the program has one thread, and nothing in the heap calls back.
    let heap = unsafe { GilHeld::new(Heap::new(arenas, &records)) };
    let pymalloc = Pymalloc::new(heap, &records);

    // Many more blocks than the buffer has room for at once.
    for round in 0..100 {
        let blocks = [16, 30, 48, 64].map(|size| (size, pymalloc.malloc(size).expect("a block")));
        assert_eq!(in_use(&pymalloc), 4);
        for (size, block) in blocks {
            // SAFETY: the block has that many bytes and is this program's.
            unsafe { block.write_bytes(round, size) };
            // SAFETY: the block is live and not used again.
            unsafe { pymalloc.free(Some(block)) };
        }
    }
    assert_eq!(in_use(&pymalloc), 0);
}

fn in_use<S: raw_mem::ArenaSource, A: MemAlloc + Copy>(
    pymalloc: &Pymalloc<GilHeld<Heap<KnownArenas<S, A, Tiny>, A, Tiny>>, A>,
) -> usize {
    pymalloc.stats().classes().iter().map(|class| class.in_use).sum()
}
