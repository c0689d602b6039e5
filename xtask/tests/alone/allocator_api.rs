//! An allocator as a C vtable, a hook over it, and the removal of the hook.

use std::sync::OnceLock;

use allocator_api::{CAllocator, Domain, DomainTable, hooks::Counting};
use allocator_api::raw_mem::{Malloc, MemAlloc};

static TABLE: DomainTable = DomainTable::new([CAllocator::of(&Malloc); 3]);
static HOOK: OnceLock<Counting<CAllocator>> = OnceLock::new();

pub(crate) fn main() {
    let before = TABLE.get(Domain::Obj);
    let hook = HOOK.get_or_init(|| Counting::new(before, 512));
    // SAFETY: the hook passes every request to the allocator below it.
    unsafe { TABLE.set(Domain::Obj, CAllocator::of(hook)) }.expect("out of memory");
    let blocks = [40, 4000].map(|size| TABLE.allocator(Domain::Obj).malloc(size));
    let elsewhere = TABLE.allocator(Domain::Mem).malloc(40);
    // SAFETY: every block of the hook is a block of the allocator below it.
    unsafe { TABLE.set(Domain::Obj, before) }.expect("a vtable that was set before");
    for block in blocks {
        // SAFETY: the block is live and not used again.
        unsafe { TABLE.allocator(Domain::Obj).free(block) };
    }
    // SAFETY: the block is live and not used again.
    unsafe { TABLE.allocator(Domain::Mem).free(elsewhere) };
    let counts = hook.counts();
    assert_eq!((counts.small.requests, counts.large.requests), (1, 1));
    assert!(TABLE.get(Domain::Obj).is(&before));
}
