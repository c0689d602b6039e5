//! Every program prints the line of its Python original on every choice of layers, and leaks no
//! block.

use object_cache::CacheGroup;
use objects::{
    CachesOverMalloc, CachesOverPools, Layers, MallocAlone, Pools, Runtime, layers::pool,
    workloads::Workload,
};
use raw_mem::MemAlloc;

fn prints_what_python_prints<L: Layers>() {
    let runtime = Runtime::<L>::default();
    for workload in Workload::ALL {
        assert_eq!(workload.run(&runtime), workload.prints(), "{workload:?}");
    }
}

#[test]
fn programs_print_the_same_on_malloc_alone() {
    prints_what_python_prints::<MallocAlone>();
}

#[test]
fn programs_print_the_same_on_caches_over_malloc() {
    prints_what_python_prints::<CachesOverMalloc>();
}

/// Returns the number of blocks of the thread's pools that are in use.
fn blocks_in_use() -> usize {
    pool().stats().classes().iter().map(|class| class.in_use).sum()
}

#[test]
fn programs_print_the_same_on_pools_and_leave_no_block_in_use() {
    prints_what_python_prints::<Pools>();
    assert_eq!(blocks_in_use(), 0);
}

#[test]
fn programs_print_the_same_on_all_layers_and_clearing_returns_every_block() {
    prints_what_python_prints::<CachesOverPools>();
    assert!(blocks_in_use() > 0, "free objects are cached");
    let store = CachesOverPools::store();
    let cleared = object_cache::Cache::clear(&CacheGroup(&store.caches()));
    assert!(cleared.objects > 0);
    assert_eq!(blocks_in_use(), 0);
    let block = store.below.malloc(8);
    // SAFETY: the block is live and not used again.
    unsafe { store.below.free(block) };
}
