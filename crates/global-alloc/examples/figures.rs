//! Prints the figures of a process with busy threads, and what a thousand calls of `stats` per
//! second cost these threads.
//!
//! ```sh
//! cargo run --release --example figures -p obmalloc-global-alloc
//! ```

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use global_alloc::{Detail, ObMalloc};

#[global_allocator]
static GLOBAL: ObMalloc = ObMalloc::new();

static IS_DONE: AtomicBool = AtomicBool::new(false);
/// The requests of all threads, in thousands.
static TURNS: AtomicUsize = AtomicUsize::new(0);
/// The processor time that these requests took, in nanoseconds.
static TIME: AtomicUsize = AtomicUsize::new(0);

/// The number of calls to `stats` while the cost was measured.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// Returns the processor time of the calling thread, in nanoseconds.
fn processor_time() -> usize {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written to the variable.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as usize * 1_000_000_000 + time.tv_nsec as usize
}

/// Replaces blocks of up to 2 KiB in a table of 4,000 until the program is done.
fn work(seed: usize) {
    let (mut state, mut blocks) = (seed, vec![Vec::new(); 4000]);
    while !IS_DONE.load(Relaxed) {
        let start = processor_time();
        for _ in 0..1000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (at, size) = ((state >> 33) % blocks.len(), 1 + (state >> 50) % 2048);
            blocks[at] = Vec::<u8>::with_capacity(size);
        }
        TURNS.fetch_add(1, Relaxed);
        TIME.fetch_add(processor_time() - start, Relaxed);
    }
}

/// Returns the average processor time that the busy threads need for a request, in nanoseconds.
///
/// The measurement takes a quarter of a second. During this time, the calling thread calls `stats`
/// at a rate of `rate` calls per second, and sleeps between the calls. If the thread sleeps too
/// long because all processors are busy, it makes the missed calls immediately afterwards.
fn cost(rate: f64) -> f64 {
    let (turns, time, start) = (TURNS.load(Relaxed), TIME.load(Relaxed), Instant::now());
    let is_over = || start.elapsed() >= Duration::from_millis(250);
    let mut calls: u32 = 0;
    while !is_over() {
        while f64::from(calls) < rate * start.elapsed().as_secs_f64() && !is_over() {
            std::hint::black_box(GLOBAL.stats());
            calls += 1;
        }
        thread::sleep(Duration::from_micros(500));
    }
    CALLS.fetch_add(calls as usize, Relaxed);
    (TIME.load(Relaxed) - time) as f64 / (1000 * (TURNS.load(Relaxed) - turns).max(1)) as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let threads = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(8);
    thread::scope(|scope| {
        for seed in 0..threads {
            scope.spawn(move || work(seed));
        }
        thread::sleep(Duration::from_millis(200));
        let figures = GLOBAL.stats();
        println!("{figures}");
        let mut metrics = String::new();
        figures
            .write_prometheus(&mut metrics, Detail::Kinds)
            .expect("writing to a string cannot fail");
        println!("{metrics}");
        let mut json = String::new();
        figures.write_json(&mut json, Detail::Kinds).expect("writing to a string cannot fail");
        println!("{json}");
        let start = Instant::now();
        (0..1000).for_each(|_| _ = std::hint::black_box(GLOBAL.stats()));
        println!("a call takes {:?}", start.elapsed() / 1000);
        let pairs: Vec<_> = (0..30).map(|_| (cost(0.0), cost(1000.0))).collect();
        let plain = median(pairs.iter().map(|(plain, _)| *plain).collect());
        let watched = median(pairs.iter().map(|(_, watched)| *watched).collect());
        let rate = CALLS.load(Relaxed) as f64 / (pairs.len() as f64 * 0.25);
        println!(
            "a request takes {plain:.2} ns, and {watched:.2} ns with {rate:.0} calls per second"
        );
        IS_DONE.store(true, Relaxed);
    });
    let kept: Vec<_> = (1..=1000).map(|size| vec![0_u8; size]).collect();
    let (mut blocks, mut bytes) = (0, 0);
    // SAFETY: the other threads have ended, and the closure neither allocates nor frees.
    unsafe {
        GLOBAL.for_each_block(|block| {
            blocks += 1;
            bytes += block.size;
        });
    }
    println!("beside {} vectors, {} blocks are in use", kept.len(), blocks - kept.len());
    println!("all of them have {bytes} bytes, and stats counts {}", GLOBAL.stats().allocated());
}
