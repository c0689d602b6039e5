//! The figures of the whole process.

use std::{
    alloc::{Layout, alloc, dealloc},
    hint::black_box,
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use global_alloc::{Detail, Figures, Kind, ObMalloc};

#[global_allocator]
static GLOBAL: ObMalloc = ObMalloc::new();

const THREADS: usize = 8;

/// What the threads hold, in bytes of their size classes.
static HELD: [AtomicUsize; THREADS] = [const { AtomicUsize::new(0) }; THREADS];

static IS_DONE: AtomicBool = AtomicBool::new(false);

/// The next number of a simple generator.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

/// Returns a size of a small block mostly, and sometimes of a medium pool, a span or a large block.
fn size(state: &mut u64) -> usize {
    match next(state) % 1000 {
        0 => 500 << 10,
        1..=4 => 1 + next(state) % (400 << 10),
        5..=60 => 1 + next(state) % (8 << 10),
        _ => 1 + next(state) % 512,
    }
}

/// Allocates and frees blocks until the test is done, and holds some thousands of them.
fn work(nth: usize, has_begun: &Barrier) {
    let (mut state, mut blocks) = (nth as u64, Vec::<(*mut u8, Layout)>::with_capacity(4096));
    // SAFETY: the vector has memory of the global allocator.
    let mut held = unsafe { GLOBAL.usable_size(blocks.as_ptr().cast()) };
    let mut turn = |blocks: &mut Vec<(*mut u8, Layout)>| {
        let layout = Layout::from_size_align(size(&mut state), 8).unwrap();
        // SAFETY: the layout is not empty.
        let block = unsafe { alloc(layout) };
        assert!(!block.is_null());
        // SAFETY: the block is live.
        held += unsafe { GLOBAL.usable_size(block) };
        if blocks.len() < 4000 {
            blocks.push((block, layout));
        } else {
            let at = next(&mut state) % blocks.len();
            let (old, layout) = std::mem::replace(&mut blocks[at], (block, layout));
            // SAFETY: the block is live.
            held -= unsafe { GLOBAL.usable_size(old) };
            // SAFETY: as above, and it is not used again.
            unsafe { dealloc(old, layout) };
        }
        HELD[nth].store(held, Relaxed);
    };
    (0..4000).for_each(|_| turn(&mut blocks));
    has_begun.wait();
    while !IS_DONE.load(Relaxed) {
        turn(&mut blocks);
    }
    for (block, layout) in blocks {
        // SAFETY: the block is live, and is not used again.
        unsafe { dealloc(block, layout) };
    }
}

fn held() -> usize {
    HELD.iter().map(|held| held.load(Relaxed)).sum()
}

#[test]
fn the_figures_of_eight_busy_threads_are_within_two_percent() {
    let before = GLOBAL.stats().allocated();
    let has_begun = Barrier::new(THREADS + 1);
    thread::scope(|scope| {
        for nth in 0..THREADS {
            let has_begun = &has_begun;
            scope.spawn(move || work(nth, has_begun));
        }
        has_begun.wait();
        let outcome = (0..300).map(|_| difference_from(before)).collect::<Result<Vec<_>, _>>();
        IS_DONE.store(true, Relaxed);
        let judged: Vec<f64> = outcome.unwrap().into_iter().flatten().collect();
        assert!(judged.len() >= 20, "the threads were never calm enough: {judged:?}");
        let worst = judged.iter().copied().fold(0.0, f64::max);
        assert!(worst < 0.02, "{worst} is the greatest difference of {judged:?}");
    });
}

/// Returns the relative difference between the figures and what the threads hold.
///
/// Returns `None` if the threads meanwhile allocated or freed so much that nobody knows.
fn difference_from(before: usize) -> Result<Option<f64>, String> {
    thread::sleep(Duration::from_millis(1));
    let low = held() as f64;
    let figures = GLOBAL.stats();
    let high = held() as f64;
    let parts = figures.active() + figures.retained() + figures.purged();
    if parts != figures.mapped() || figures.highwater < figures.active() {
        return Err(format!("{figures}"));
    }
    let counted = (figures.allocated() - before) as f64;
    let difference = (counted - (low + high) / 2.0).abs() / low;
    Ok(((high - low).abs() < 0.005 * low).then_some(difference))
}

#[test]
fn the_figures_add_up() {
    adds_up(&GLOBAL.stats());
}

fn adds_up(figures: &Figures) {
    let parts = figures.active() + figures.retained() + figures.purged();
    assert_eq!(parts, figures.mapped(), "{figures}");
    let by_class: usize = figures.classes().iter().map(|class| class.in_use.allocated).sum();
    let by_kind: usize = Kind::ALL.iter().map(|kind| figures.of_kind(*kind).allocated).sum();
    assert_eq!(by_class + figures.of_kind(Kind::Large).allocated, by_kind);
    assert!(figures.highwater >= figures.active() && figures.allocated() <= figures.active());
}

#[test]
fn a_report_can_be_text_json_and_prometheus() {
    let block = black_box(vec![1_u8; 1 << 20]);
    let figures = GLOBAL.stats();
    let mut json = String::new();
    figures.write_json(&mut json, Detail::Classes).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["allocated"], figures.allocated());
    assert_eq!(json["limit"], serde_json::Value::Null);
    assert!(json["kinds"]["large"]["allocated"].as_u64() >= Some(1 << 20), "{json}");
    assert!(json["classes"][0]["blocks"].as_u64() > Some(0), "{json}");
    let mut metrics = String::new();
    figures.write_prometheus(&mut metrics, Detail::Classes).unwrap();
    let allocated = format!("\nobmalloc_allocated_bytes {}\n", figures.allocated());
    assert!(metrics.contains(&allocated), "{metrics}");
    assert!(metrics.contains("\n# TYPE obmalloc_arenas gauge\nobmalloc_arenas "), "{metrics}");
    assert!(metrics.contains("\nobmalloc_class_blocks{block_size=\"16\"} "), "{metrics}");
    let text = format!("{figures:#}");
    assert!(text.contains("\nkind ") && text.contains("\nclass "), "{text}");
    drop(block);
}
