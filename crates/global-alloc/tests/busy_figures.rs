//! The figures of the whole process, while eight threads allocate and free.
//!
//! Each thread keeps a record of the bytes that it holds. A measurement reads the records, counts
//! the memory through the allocator, and reads the records again. The exact number of bytes in use
//! at the moment of the count is unknown. The records give a lower bound (bytes in use the whole
//! time) and an upper bound (bytes in use at any time).

use std::{
    alloc::{Layout, alloc, dealloc},
    hint::black_box,
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Barrier, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread,
    time::{Duration, Instant},
};

use global_alloc::ObMalloc;

#[global_allocator]
static GLOBAL: ObMalloc = ObMalloc::new();

const THREADS: usize = 8;

/// The number of blocks that each thread holds.
const HELD: usize = 4000;

/// The number of blocks in an exchange.
const EXCHANGED: usize = 1000;

/// The largest accepted difference between the counted bytes and the bytes that the threads hold,
/// as a fraction of the latter.
const ALLOWED: f64 = 0.02;

/// The number of measurements.
const MEASUREMENTS: usize = 300;

/// The minimum number of measurements that are precise enough to be compared with [`ALLOWED`].
const PRECISE: usize = 20;

/// The time after which we give up on precise measurements, because the machine is too busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// What one thread knows about its blocks, in bytes of their size classes. The numbers only grow.
///
/// The thread announces each change before it makes the change, and confirms it afterwards. A
/// reader can therefore compute bounds even while the thread is in the middle of a change.
#[derive(Default)]
struct Book {
    /// The bytes that the thread has allocated or is about to allocate.
    requested: AtomicUsize,
    allocated: AtomicUsize,
    /// The bytes that the thread has freed or is about to free.
    released: AtomicUsize,
    freed: AtomicUsize,
}

/// Eight threads and the state that they share.
struct Crowd {
    books: [Book; THREADS],
    /// Blocks that any thread may take and free. `None` if each thread frees only its own blocks.
    exchange: Option<Mutex<Vec<Held>>>,
    barrier: Barrier,
    is_done: AtomicBool,
}

/// A block and the number of bytes that its size class uses for it.
struct Held {
    start: *mut u8,
    layout: Layout,
    bytes: usize,
}

// SAFETY: a block belongs to whoever holds it, and may be freed by any thread.
unsafe impl Send for Held {}

impl Held {
    fn alloc(layout: Layout) -> Self {
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc(layout) };
        assert!(!start.is_null());
        // SAFETY: the block is live.
        Self { start, layout, bytes: unsafe { GLOBAL.usable_size(start) } }
    }

    /// Writes to the block and computes for some microseconds, as a program would.
    fn work(&self) {
        // SAFETY: the block is live and has that many bytes.
        unsafe { self.start.write_bytes(7, self.layout.size()) };
        let mut state = self.bytes as u64;
        (0..2000).for_each(|_| _ = black_box(next(&mut state)));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: the block is live, and not used again.
        unsafe { dealloc(self.start, self.layout) };
    }
}

/// Returns the next number of a simple pseudo-random generator.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

/// Returns a random size: usually of a small block, sometimes of a medium pool, a span or a large
/// block.
fn size(state: &mut u64) -> usize {
    match next(state) % 1000 {
        // All large blocks have the same size, because a heap can serve a request with a retained
        // block of similar size.
        0 => 500 << 10,
        1..=4 => 1 + next(state) % (400 << 10),
        5..=60 => 1 + next(state) % (8 << 10),
        _ => 1 + next(state) % 512,
    }
}

/// Returns the layouts that a thread requests repeatedly, and the bytes that their size classes
/// use.
fn layouts(nth: usize) -> Vec<(Layout, usize)> {
    let mut state = nth as u64;
    let measured = |size| {
        let block = Held::alloc(Layout::from_size_align(size, 8).unwrap());
        (block.layout, block.bytes)
    };
    (0..2 * HELD).map(|_| measured(size(&mut state))).collect()
}

impl Crowd {
    fn new(exchange: Option<Vec<Held>>) -> Self {
        Self {
            books: Default::default(),
            exchange: exchange.map(Mutex::new),
            barrier: Barrier::new(THREADS + 1),
            is_done: AtomicBool::new(false),
        }
    }

    /// Runs the threads until enough measurements have succeeded.
    fn run(&self) {
        thread::scope(|scope| {
            for nth in 0..THREADS {
                scope.spawn(move || self.work(nth));
            }
            self.barrier.wait();
            let others = GLOBAL.stats().allocated();
            self.barrier.wait();
            self.barrier.wait();
            let outcome = catch_unwind(AssertUnwindSafe(|| self.measure(others)));
            // The threads must end even if a measurement failed.
            self.is_done.store(true, Relaxed);
            outcome.unwrap_or_else(|panic| resume_unwind(panic));
        });
    }

    /// Allocates and frees blocks until the test is done, and holds [`HELD`] of them.
    ///
    /// If there is an exchange, about one block in ten goes there, and the thread frees a block
    /// from the exchange instead.
    fn work(&self, nth: usize) {
        let (book, layouts) = (&self.books[nth], layouts(nth));
        let mut blocks = Vec::<Held>::with_capacity(HELD);
        let mut state = !(nth as u64);
        let mut turn = |blocks: &mut Vec<Held>| {
            let (layout, bytes) = layouts[next(&mut state) % layouts.len()];
            book.requested.fetch_add(bytes, SeqCst);
            let block = Held::alloc(layout);
            book.allocated.fetch_add(bytes, SeqCst);
            assert_eq!(block.bytes, bytes, "the book knows the size of the block");
            block.work();
            if blocks.len() < HELD {
                return blocks.push(block);
            }
            let at = next(&mut state) % HELD;
            let mine = mem::replace(&mut blocks[at], block);
            let old = if at.is_multiple_of(10) { self.swap(mine, at / 10) } else { Some(mine) };
            if let Some(old) = old {
                let bytes = old.bytes;
                book.released.fetch_add(bytes, SeqCst);
                drop(old);
                book.freed.fetch_add(bytes, SeqCst);
            }
        };
        // Between these two calls, the test counts the memory that the program holds besides the
        // blocks.
        self.barrier.wait();
        self.barrier.wait();
        (0..HELD).for_each(|_| turn(&mut blocks));
        self.barrier.wait();
        while !self.is_done.load(Relaxed) {
            turn(&mut blocks);
        }
    }

    /// Swaps a block for one from the exchange. If the exchange is not full yet, only adds the
    /// block and returns `None`.
    fn swap(&self, block: Held, at: usize) -> Option<Held> {
        let Some(exchange) = &self.exchange else { return Some(block) };
        let mut blocks = exchange.lock().unwrap();
        if blocks.len() < EXCHANGED {
            blocks.push(block);
            return None;
        }
        Some(mem::replace(&mut blocks[at % EXCHANGED], block))
    }

    fn sum(&self, number: impl Fn(&Book) -> &AtomicUsize) -> usize {
        self.books.iter().map(|book| number(book).load(SeqCst)).sum()
    }

    /// Measures until enough measurements have succeeded. `others` is the number of bytes that the
    /// threads' records do not include.
    fn measure(&self, others: usize) {
        let (started, mut precise, mut all) = (Instant::now(), 0, 0);
        while precise < PRECISE || all < MEASUREMENTS {
            thread::sleep(Duration::from_millis(1));
            let measured = Measurement::take(self, others);
            assert!(measured.error() <= ALLOWED, "{measured:?}");
            if measured.is_precise() {
                assert!(measured.difference() <= ALLOWED, "{measured:?}");
                precise += 1;
            }
            all += 1;
            assert!(started.elapsed() < PATIENCE, "only {precise} of {all} were precise");
        }
    }
}

/// The counted bytes and the bounds from the threads' records.
#[derive(Debug)]
struct Measurement {
    /// The bytes of all blocks that were in use the whole time.
    low: usize,
    counted: usize,
    /// The bytes of all blocks that were in use at any time.
    high: usize,
}

impl Measurement {
    fn take(crowd: &Crowd, others: usize) -> Self {
        let allocated = crowd.sum(|book| &book.allocated);
        let freed = crowd.sum(|book| &book.freed);
        let figures = GLOBAL.stats();
        let requested = crowd.sum(|book| &book.requested);
        let released = crowd.sum(|book| &book.released);
        let parts = figures.active() + figures.retained() + figures.purged();
        assert_eq!(parts, figures.mapped(), "{figures}");
        assert!(figures.highwater >= figures.active(), "{figures}");
        Self {
            low: allocated - released,
            counted: figures.allocated() - others,
            high: requested - freed,
        }
    }

    /// Returns true if the bounds differ by less than 1 %.
    fn is_precise(&self) -> bool {
        self.high - self.low < self.low / 100
    }

    /// Returns how far the counted bytes are outside the bounds, relative to the lower bound.
    fn error(&self) -> f64 {
        let outside =
            self.low.saturating_sub(self.counted) + self.counted.saturating_sub(self.high);
        outside as f64 / self.low as f64
    }

    /// Returns how far the counted bytes are from the middle of the bounds, relative to the lower
    /// bound.
    fn difference(&self) -> f64 {
        let middle = (self.low + self.high) / 2;
        self.counted.abs_diff(middle) as f64 / self.low as f64
    }
}

/// Runs one crowd at a time, because the figures include the memory of all tests in the process.
fn run(exchange: Option<Vec<Held>>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    Crowd::new(exchange).run();
}

#[test]
fn the_figures_of_eight_busy_threads_are_within_two_percent() {
    run(None);
}

#[test]
fn blocks_that_other_threads_have_freed_do_not_make_the_figures_wrong() {
    run(Some(Vec::with_capacity(EXCHANGED)));
}
