//! An allocator as a vtable of C, a hook above it, and the removal of the hook.

use std::sync::OnceLock;

use allocator_api::{CAllocator, Domain, DomainTable, hooks::Counting};
use allocator_api::raw_mem::{Malloc, MemAlloc};

static TABLE: DomainTable = DomainTable::new([CAllocator::of(&Malloc); 3]);
static HOOK: OnceLock<Counting<CAllocator>> = OnceLock::new();

pub(crate) fn main() {
    let before = REGISTRY.get(Domain::Obj);
    let hook = HOOK.get_or_init(|| Counted::new(before, 512));
    // SAFETY: the hook passes every request on to the allocator below it.
    unsafe { REGISTRY.set(Domain::Obj, Foreign::of(hook)) }.expect("memory for the record");
    let blocks = [40, 4000].map(|size| REGISTRY.entry(Domain::Obj).malloc(size));
    let elsewhere = REGISTRY.entry(Domain::Mem).malloc(40);
    // SAFETY: every block of the hook came from the allocator below it.
    unsafe { REGISTRY.set(Domain::Obj, before) }.expect("a vtable that was set before");
    for block in blocks {
        // SAFETY: the block came from this domain and is not used again.
        unsafe { REGISTRY.entry(Domain::Obj).free(block) };
    }
    // SAFETY: the block came from this domain and is not used again.
    unsafe { REGISTRY.entry(Domain::Mem).free(elsewhere) };
    let counts = hook.counts();
    assert_eq!((counts.small.requests, counts.large.requests), (1, 1));
    assert!(TABLE.get(Domain::Obj).is(&before));
}
