//! Blocks through the trait alone, and arenas from two sources.

use core::mem::MaybeUninit;

use raw_mem::{ArenaSize, ArenaSource, Bump, FixedRegion, MallocArenas, MemAlloc, NoAlloc};

pub(crate) fn main() {
    let mut buffer = [MaybeUninit::new(0xff); 8192];
    let bump = Bump::new(&mut buffer);
    let block = bump.calloc(3, 8).expect("the buffer has room").cast::<[u64; 3]>();
    // SAFETY: the block has 24 bytes, all of them 0.
    assert_eq!(unsafe { block.read() }, [0; 3]);
    assert!(bump.calloc(usize::MAX, 2).is_none() && NoAlloc.malloc(1).is_none());

    let size = ArenaSize::new(1024).expect("a power of two");
    two_arenas(size, MallocArenas::new(&bump));
    two_arenas(size, FixedRegion::new(&mut [MaybeUninit::uninit(); 4096]));
}

/// Maps two arenas, and unmaps them.
fn two_arenas(size: ArenaSize, mut source: impl ArenaSource) {
    let arenas = [0; 2].map(|_| source.map(size).expect("memory"));
    assert!(arenas[0] != arenas[1]);
    for arena in arenas {
        assert_eq!(arena.addr().get() % size.bytes(), 0);
        // SAFETY: the arena came from this source with this size, and nothing uses it.
        unsafe { source.unmap(arena, size) };
    }
}
