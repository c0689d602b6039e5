//! Measures what the hooks cost: `cargo run --release -p obmalloc-allocator-api --example cost`.
//!
//! Each line of the output shows two durations for 64-byte blocks. The first is the time to
//! allocate one block and free it immediately. The second is the time per block to allocate 10,000
//! blocks and then free them all.
//!
//! Both times come from the fastest of many runs.

use std::{
    hint::black_box,
    ptr::NonNull,
    time::{Duration, Instant},
};

use allocator_api::{
    Domain,
    hooks::{Counting, Debug, Trace, Traces},
    raw_mem::{Malloc, MemAlloc},
};

static TRACES: Traces = Traces::new();

const PAIRS: u32 = 2000;
const BLOCKS: u32 = 10_000;
const RUNS: usize = 300;

fn free(alloc: &impl MemAlloc, block: Option<NonNull<u8>>) {
    // SAFETY: the block came from this allocator, and is not used again.
    unsafe { alloc.free(block) };
}

fn pairs(alloc: &impl MemAlloc) {
    for _ in 0..PAIRS {
        free(alloc, black_box(alloc.malloc(64)));
    }
}

fn batch(alloc: &impl MemAlloc) {
    let blocks: Vec<_> = (0..BLOCKS).map(|_| alloc.malloc(64)).collect();
    for block in blocks {
        free(alloc, block);
    }
}

/// Returns the time of one step in the fastest run.
fn fastest(steps: u32, runs: usize, mut work: impl FnMut()) -> Duration {
    let run = |_| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    (0..runs).map(run).min().unwrap_or_default() / steps
}

fn measure(name: &str, alloc: &impl MemAlloc) {
    let pair = fastest(PAIRS, RUNS, || pairs(alloc));
    let batch = fastest(BLOCKS, RUNS / 10, || batch(alloc));
    println!("{name:<28} {:>8} ns {:>8} ns", pair.as_nanos(), batch.as_nanos());
}

fn main() {
    let trace = Trace::new(Malloc, Domain::Raw, &TRACES);
    measure("malloc", &Malloc);
    measure("counting", &Counting::new(Malloc, 512));
    measure("debug", &Debug::new(Malloc, Domain::Raw));
    measure("trace, off", &trace);
    TRACES.start(0);
    measure("trace, without places", &trace);
    for frames in [1, 8] {
        TRACES.start(frames);
        measure(&format!("trace, {frames} calls"), &trace);
    }
}
