//! A program in a steady state makes few system calls, no matter what it does.
//!
//! The test searches for the worst loop. It changes a loop at random, and keeps the change if the
//! loop then makes more system calls. After several unsuccessful changes, it starts again with
//! another loop.
#![cfg(target_os = "linux")]

use std::{cell::Cell, ptr::NonNull, rc::Rc, time::Duration};

use obmalloc::{BlockPtr, Heap, Native, PurgePolicy, SizeClass};
use raw_mem::{
    ArenaSize, ArenaSource, Contents, Malloc, MapError, MmapArenas, PurgeError, RetainingArenas,
};
use testkit::property::depth;

const SECOND: Duration = Duration::from_secs(1);

/// The time that one allocation and one free are assumed to take in these tests.
const PAIR: Duration = Duration::from_nanos(100);

/// The largest amount of memory that a loop may use at once, in bytes.
const MOST_BYTES: usize = 16 << 20;

/// The number of allocations after which a loop counts as steady. After that, the test counts the
/// calls of the same number of allocations.
const PAIRS: usize = 20_000_000;

thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::from_secs(1000)) };
}

/// A source that counts the calls that reach the system.
struct Counting {
    source: MmapArenas,
    calls: Rc<Cell<usize>>,
}

impl Counting {
    fn count(&self) {
        self.calls.set(self.calls.get() + 1);
    }
}

// SAFETY: the wrapped source serves every call.
unsafe impl ArenaSource for Counting {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        Ok(self.map_with_contents(size)?.0)
    }

    fn map_with_contents(&mut self, size: ArenaSize) -> Result<(NonNull<u8>, Contents), MapError> {
        self.count();
        self.source.map_with_contents(size)
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        self.count();
        // SAFETY: the wrapped source mapped the arena; the caller upholds the rest.
        unsafe { self.source.unmap(arena, size) }
    }

    unsafe fn purge(&mut self, start: NonNull<u8>, len: usize) -> Result<(), PurgeError> {
        self.count();
        // SAFETY: the wrapped source mapped the arena; the caller upholds the rest.
        unsafe { self.source.purge(start, len) }
    }

    fn below(&mut self) -> Option<&mut dyn ArenaSource> {
        Some(&mut self.source)
    }
}

/// One part of a loop. It repeatedly allocates blocks and frees most of them.
#[derive(Clone, Debug)]
struct Part {
    size: usize,
    blocks: usize,
    /// If the number of a block is a multiple of this number, the block lives until the next round.
    keep_one_in: usize,
    backward: bool,
    /// The duration of the part, in tenths of a second.
    tenths: u32,
}

/// A generator of random numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    /// Returns a number of at most `limit` whose magnitude is random.
    fn of_any_magnitude(&mut self, limit: usize) -> usize {
        let bits = self.below(limit.ilog2() as usize + 1);
        (1 << bits) + self.below(1 << bits).min(limit - (1 << bits))
    }

    fn part(&mut self) -> Part {
        let size = self.of_any_magnitude(400_000);
        Part {
            size,
            blocks: self.of_any_magnitude(MOST_BYTES / size.max(16)),
            keep_one_in: self.of_any_magnitude(1 << 14),
            backward: self.below(2) == 0,
            tenths: 1 + self.below(12) as u32,
        }
    }
}

type TestHeap = Heap<RetainingArenas<Counting>, Malloc, Native>;

struct Player {
    heap: TestHeap,
    pairs: usize,
}

impl Player {
    /// Plays `part` for its duration. `kept` are the blocks that the part kept in its last round.
    fn play(&mut self, part: &Part, kept: &mut Vec<BlockPtr>) {
        let class = SizeClass::of(part.size).unwrap();
        let end = NOW.get() + part.tenths * SECOND / 10;
        while NOW.get() < end {
            for block in kept.drain(..) {
                // SAFETY: the block came from this heap, and is not used again.
                unsafe { self.heap.free(block) };
            }
            let mut blocks: Vec<_> =
                (0..part.blocks).map(|_| self.heap.alloc(class).unwrap()).collect();
            if part.backward {
                blocks.reverse();
            }
            for (nth, block) in blocks.into_iter().enumerate() {
                if nth % part.keep_one_in == 0 {
                    kept.push(block);
                } else {
                    // SAFETY: the block came from this heap, and is not used again.
                    unsafe { self.heap.free(block) };
                }
            }
            self.pairs += part.blocks;
            NOW.set(NOW.get() + PAIR * part.blocks as u32);
        }
    }
}

/// Returns the number of calls per ten thousand operations that the loop makes when it is steady.
fn calls_of(parts: &[Part]) -> f64 {
    let calls = Rc::new(Cell::new(0));
    let source = Counting { source: MmapArenas::new(), calls: calls.clone() };
    let source = RetainingArenas::with_clock(source, SECOND, || NOW.get());
    let mut heap = Heap::with_geometry(source, Malloc);
    heap.set_purge_policy(PurgePolicy::after(SECOND, || NOW.get()));
    let mut player = Player { heap, pairs: 0 };
    let mut kept: Vec<_> = parts.iter().map(|_| Vec::new()).collect();
    for counts in [false, true] {
        player.pairs = 0;
        calls.set(if counts { 0 } else { calls.get() });
        while player.pairs < PAIRS {
            for (part, kept) in parts.iter().zip(&mut kept) {
                player.play(part, kept);
            }
        }
    }
    calls.get() as f64 / (2.0 * player.pairs as f64 / 10_000.0)
}

#[test]
fn the_worst_loop_that_a_search_finds_makes_one_call_per_ten_thousand_operations() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut worst, mut current, mut failures) = ((-1.0, Vec::new()), (-1.0, Vec::new()), 3);
    for _ in 0..8 * depth() {
        let mut parts: Vec<Part> = current.1.clone();
        if failures == 3 {
            parts = (0..1 + random.below(4)).map(|_| random.part()).collect();
            (current, failures) = ((-1.0, Vec::new()), 0);
        } else {
            let place = random.below(parts.len());
            parts[place] = random.part();
        }
        let calls = calls_of(&parts);
        if calls > current.0 {
            current = (calls, parts);
            failures = 0;
        } else {
            failures += 1;
        }
        if current.0 > worst.0 {
            worst = current.clone();
        }
    }
    println!("{} calls for ten thousand operations: {:?}", worst.0, worst.1);
    assert!(worst.0 <= 1.0, "{} calls for ten thousand operations: {:?}", worst.0, worst.1);
}
