//! Pairs and batches on what needs no process of its own: our heaps, the least, and the peers that
//! are compiled in, called as Rust calls them. `cargo xtask bench` measures each by itself.
//!
//! ```sh
//! cargo bench -p benches
//! cargo bench -p benches --features mimalloc,jemalloc -- "pair/64"
//! ```

use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
};

use benches::{
    contender::{Contender, Held},
    contenders::{Floor, OwnHeap},
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use global_alloc::ObMalloc;
use obmalloc::{Pools16K, RestEachClass};

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

/// Blocks of a batch.
const BATCH: usize = 1_000;

/// Every bench on one contender.
fn on<C: Contender>(criterion: &mut Criterion, name: &str, mut contender: C) {
    let mut pairs = criterion.benchmark_group("pair");
    for size in [16, 64, 256, 512] {
        pairs.bench_function(BenchmarkId::new(name, size), |bencher| {
            bencher.iter(|| Held::new(&mut contender, black_box(size)).free(&mut contender));
        });
    }
    pairs.finish();
    let mut blocks = Vec::with_capacity(BATCH);
    let mut batches = criterion.benchmark_group("batch of 1,000");
    batches.bench_function(name, |bencher| {
        bencher.iter(|| {
            blocks.extend((0..BATCH).map(|place| Held::new(&mut contender, 1 + place % 512)));
            blocks.drain(..).for_each(|held| held.free(&mut contender));
        });
    });
    batches.finish();
}

fn all(criterion: &mut Criterion) {
    on(criterion, "Heap", OwnHeap::<RestEachClass<Pools16K>>::new());
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
