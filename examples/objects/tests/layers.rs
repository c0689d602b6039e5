//! Every program prints what its Python original prints, on every choice of layers, and leaves
//! nothing behind.

use objects::{
    CachesOverMalloc, CachesOverPools, Layers, MallocAlone, Pools, Runtime, Store,
    workloads::{ALL, Workload},
};
use raw_mem::MemAlloc;

fn prints_what_python_prints<L: Layers>(workloads: &[Workload]) {
    let runtime = Runtime::<L>::default();
    for workload in workloads {
        assert_eq!(workload.run(&runtime), workload.prints, "{}", workload.name);
    }
}

#[test]
fn every_program_prints_what_python_prints() {
    prints_what_python_prints::<CachesOverPools>(ALL);
}

/// Those that are quick: between them they make objects of every type.
fn some() -> Vec<Workload> {
    let quick = ["async_echo", "class_simulation", "expression_parser", "object_tree"];
    ALL.iter().filter(|workload| quick.contains(&workload.name)).copied().collect()
}

#[test]
fn programs_print_the_same_on_malloc_alone() {
    prints_what_python_prints::<MallocAlone>(&some());
}

#[test]
fn programs_print_the_same_on_pools() {
    prints_what_python_prints::<Pools>(&some());
}

#[test]
fn programs_print_the_same_on_caches_over_malloc() {
    prints_what_python_prints::<CachesOverMalloc>(&some());
}

/// Blocks of the thread's pools that are in use.
fn blocks_in_use<L: Layers<Below = &'static objects::layers::Pool>>() -> usize {
    L::store().below.stats().classes().iter().map(|class| class.in_use).sum()
}

#[test]
fn when_a_runtime_ends_no_block_of_the_pools_is_in_use() {
    let runtime = Runtime::<Pools>::default();
    assert_eq!(ALL[0].run(&runtime), ALL[0].prints);
    drop(runtime);
    assert_eq!(blocks_in_use::<Pools>(), 0);
}

#[test]
fn what_the_caches_keep_is_given_down_on_demand() {
    let runtime = Runtime::<CachesOverPools>::default();
    assert_eq!(ALL[1].run(&runtime), ALL[1].prints);
    drop(runtime);
    assert!(blocks_in_use::<CachesOverPools>() > 0, "dead objects are cached");
    let registry = object_cache::Registry::new();
    let store: &Store<CachesOverPools> = CachesOverPools::store();
    let cleared = store.registered(&registry, || registry.clear_all());
    assert!(cleared.objects > 0);
    assert_eq!(blocks_in_use::<CachesOverPools>(), 0);
    let block = store.below.malloc(8);
    // SAFETY: the block is live and not used again.
    unsafe { store.below.free(block) };
}
