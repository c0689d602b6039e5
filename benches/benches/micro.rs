//! The micro set under criterion: our heaps, the least, the system's allocator, and the peers that
//! are compiled in. All run in one process; `cargo xtask bench` gives each its own.
//!
//! ```sh
//! cargo bench -p benches
//! cargo bench -p benches --features mimalloc,jemalloc -- "pair 64"
//! ```

use std::{alloc::System, time::Duration};

use benches::{
    contender::Contender,
    contenders::{CPythonRulesHeap, Floor, ThreadRulesHeap},
    micro,
    workload::Workload,
};
use criterion::{Criterion, criterion_group, criterion_main};
use global_alloc::ObMalloc;

/// Runs the whole micro set on one contender. An iteration of criterion is an operation.
fn on<C: Contender>(criterion: &mut Criterion, name: &str, mut contender: C) {
    for workload in micro::workloads::<C>() {
        let mut group = criterion.benchmark_group(workload.name);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| time_of(iterations, &workload, &mut contender));
        });
        group.finish();
    }
}

/// Runs chunks until they have `count` operations, and returns the time of as many.
fn time_of<C>(count: u64, workload: &Workload<C>, contender: &mut C) -> Duration {
    let (mut time, mut operations) = (Duration::ZERO, 0);
    while operations < count {
        let taken = (workload.chunk)(contender);
        time += taken.time;
        operations += taken.operations;
    }
    time.mul_f64(count as f64 / operations as f64)
}

fn all(criterion: &mut Criterion) {
    on(criterion, "Heap", ThreadRulesHeap::default());
    on(criterion, "Heap, CPython's rules", CPythonRulesHeap::default());
    on(criterion, "ObMalloc", ObMalloc::new());
    on(criterion, "the least", Floor::default());
    on(criterion, "system", System);
    #[cfg(feature = "mimalloc")]
    on(criterion, "mimalloc", mimalloc::MiMalloc);
    #[cfg(feature = "rpmalloc")]
    on(criterion, "rpmalloc", rpmalloc::RpMalloc);
    #[cfg(feature = "snmalloc")]
    on(criterion, "snmalloc", snmalloc_rs::SnMalloc);
    #[cfg(feature = "jemalloc")]
    on(criterion, "jemalloc", tikv_jemallocator::Jemalloc);
}

criterion_group!(micro, all);
criterion_main!(micro);
