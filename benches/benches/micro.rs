//! The micro set on what needs no process of its own: our heaps, the least, and the peers that are
//! compiled in, called as Rust calls them. `cargo xtask bench` measures each by itself.
//!
//! ```sh
//! cargo bench -p benches
//! cargo bench -p benches --features mimalloc,jemalloc -- "pair 64"
//! ```

use std::{
    alloc::{GlobalAlloc, Layout, System},
    time::Duration,
};

use benches::{
    contender::Contender,
    contenders::{CPythonRulesHeap, Floor, ThreadRulesHeap},
    micro,
    workload::Workload,
};
use criterion::{Criterion, criterion_group, criterion_main};
use global_alloc::ObMalloc;

/// An allocator that is called by its own functions, though another is the global one.
struct Called<A>(A);

// SAFETY: the promises are those of a global allocator.
unsafe impl<A: GlobalAlloc> Contender for Called<A> {
    #[inline]
    fn alloc(&mut self, layout: Layout) -> *mut u8 {
        // SAFETY: the trait asks for at least a byte.
        unsafe { self.0.alloc(layout) }
    }

    #[inline]
    fn alloc_zeroed(&mut self, layout: Layout) -> *mut u8 {
        // SAFETY: the trait asks for at least a byte.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn free(&mut self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.0.dealloc(memory, layout) };
    }

    #[inline]
    unsafe fn realloc(&mut self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.0.realloc(memory, layout, size) }
    }
}

/// The whole micro set on one contender. What criterion takes for an iteration is an operation.
fn on<C: Contender>(criterion: &mut Criterion, name: &str, mut contender: C) {
    for workload in micro::workloads::<C>() {
        let mut group = criterion.benchmark_group(workload.name);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| of_operations(iterations, &workload, &mut contender));
        });
        group.finish();
    }
}

/// What so many operations take, after the chunks that have at least as many.
fn of_operations<C>(count: u64, workload: &Workload<C>, contender: &mut C) -> Duration {
    let (mut time, mut operations) = (Duration::ZERO, 0);
    while operations < count {
        let taken = (workload.chunk)(contender);
        time += taken.time;
        operations += taken.operations;
    }
    time.mul_f64(count as f64 / operations as f64)
}

fn all(criterion: &mut Criterion) {
    on(criterion, "Heap", ThreadRulesHeap::new());
    on(criterion, "Heap, CPython's rules", CPythonRulesHeap::new());
    on(criterion, "ObMalloc", Called(ObMalloc::new()));
    on(criterion, "the least", Floor::new());
    on(criterion, "system", Called(System));
    #[cfg(feature = "mimalloc")]
    on(criterion, "mimalloc", Called(mimalloc::MiMalloc));
    #[cfg(feature = "rpmalloc")]
    on(criterion, "rpmalloc", Called(rpmalloc::RpMalloc));
    #[cfg(feature = "snmalloc")]
    on(criterion, "snmalloc", Called(snmalloc_rs::SnMalloc));
    #[cfg(feature = "jemalloc")]
    on(criterion, "jemalloc", Called(tikv_jemallocator::Jemalloc));
}

criterion_group!(micro, all);
criterion_main!(micro);
