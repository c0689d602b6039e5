//! Free memory inside arenas in use goes back to the system, and blocks never notice.

use std::{cell::Cell, collections::BTreeMap, slice, time::Duration};

use obmalloc::{BlockPtr, Geometry, Heap, Native, PurgePolicy, SizeClass};
use proptest::{collection::vec, prelude::*};
use raw_mem::{Malloc, MmapArenas};
use testkit::{
    failing::{FailingArenas, Faults, Plan},
    place::ArenaLog,
    property::check,
};

type TestHeap = Heap<FailingArenas<MmapArenas>, Malloc, Native>;

const SECOND: Duration = Duration::from_secs(1);

thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::from_secs(1000)) };
}

/// A heap with a clock that only the test advances, and its live blocks.
struct Rig {
    heap: TestHeap,
    purges: Faults,
    live: BTreeMap<usize, Live>,
    count: u8,
}

/// A block that is filled with a byte of its own.
struct Live {
    block: BlockPtr,
    size: usize,
    byte: u8,
}

#[derive(Clone, Debug)]
enum Step {
    /// Allocates `count` blocks of `size` bytes. Every second one is zeroed.
    Alloc { size: usize, count: usize },
    /// Frees all blocks but each `nth` one, in ascending or descending order.
    Thin { nth: usize, backward: bool },
    /// Frees the live block with this number.
    Free { nth: usize },
    Trim,
    Wait { milliseconds: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = (0_u32..18, 0.0..1.0).prop_map(|(bits, part)| {
        (((1 << bits) as f64 * (1.0 + part)) as usize).min(Native::SIZES.arena_threshold)
    });
    let step = prop_oneof![
        8 => (size, 1_usize..400).prop_map(|(size, count)| Step::Alloc { size, count }),
        4 => (1_usize..300, any::<bool>()).prop_map(|(nth, backward)| Step::Thin { nth, backward }),
        6 => any::<usize>().prop_map(|nth| Step::Free { nth }),
        3 => Just(Step::Trim),
        6 => (1_u64..900).prop_map(|milliseconds| Step::Wait { milliseconds }),
    ];
    vec(step, 1..60)
}

impl Rig {
    fn new(policy: PurgePolicy) -> Self {
        let purges = Faults::default();
        let source = FailingArenas::new(MmapArenas::new(), Faults::default(), ArenaLog::default());
        let mut heap = Heap::with_geometry(source.with_purge_faults(purges.clone()), Malloc);
        heap.set_purge_policy(policy);
        Self { heap, purges, live: BTreeMap::new(), count: 0 }
    }

    fn delayed() -> Self {
        Self::new(PurgePolicy::after(SECOND, || NOW.get()))
    }

    fn alloc(&mut self, size: usize, zeroed: bool) {
        let class = SizeClass::of(size).unwrap();
        let block = match zeroed {
            true => self.heap.alloc_zeroed(class, size).unwrap(),
            false => self.heap.alloc(class).unwrap(),
        };
        let start = block.start();
        if zeroed {
            // SAFETY: the block was allocated just now, and these bytes are initialised.
            let bytes = unsafe { slice::from_raw_parts(start.as_ptr(), size) };
            assert!(bytes.iter().all(|byte| *byte == 0), "{size} bytes are not zero");
        }
        self.count = self.count % 250 + 1;
        // SAFETY: the test owns the block, which has its whole size.
        unsafe { start.write_bytes(self.count, class.block_size()) };
        let live = Live { block, size: class.block_size(), byte: self.count };
        let end = start.addr().get() + live.size;
        let next = self.live.range(start.addr().get()..).next();
        assert!(next.is_none_or(|(start, _)| *start >= end), "blocks do not overlap");
        assert!(self.live.insert(start.addr().get(), live).is_none(), "a block is handed out twice");
    }

    fn free(&mut self, start: usize) {
        let live = self.live.remove(&start).unwrap();
        live.check();
        // SAFETY: the block came from this heap, and is not used again.
        unsafe { self.heap.free(live.block) };
    }

    fn thin(&mut self, keep_one_in: usize, backward: bool) {
        let mut starts: Vec<_> = self.live.keys().copied().collect();
        if backward {
            starts.reverse();
        }
        for (at, start) in starts.into_iter().enumerate() {
            if at % keep_one_in != 0 {
                self.free(start);
            }
        }
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Alloc { size, count } => {
                let count = count.min((1 << 20) / size).max(1);
                (0..count).for_each(|nth| self.alloc(size, nth % 2 == 1));
            }
            Step::Thin { nth, backward } => self.thin(nth, backward),
            Step::Free { nth } => {
                if let Some(start) = self.live.keys().nth(nth % self.live.len().max(1)).copied() {
                    self.free(start);
                }
            }
            Step::Trim => {
                self.heap.trim();
            }
            Step::Wait { milliseconds } => {
                NOW.set(NOW.get() + Duration::from_millis(milliseconds));
                // These blocks let the heap take enough slow paths to look at its clock.
                for _ in 0..70 {
                    let class = SizeClass::of(9000).unwrap();
                    let block = self.heap.alloc(class).unwrap();
                    // SAFETY: the block came from this heap, and is not used again.
                    unsafe { self.heap.free(block) };
                }
            }
        }
        self.heap.check_invariants();
        self.live.values().for_each(Live::check);
    }
}

impl Live {
    fn check(&self) {
        // SAFETY: the test owns the block, and has initialised its whole size.
        let bytes = unsafe { slice::from_raw_parts(self.block.start().as_ptr(), self.size) };
        assert!(bytes.iter().all(|byte| *byte == self.byte), "a live block has changed");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.thin(usize::MAX, false);
        }
    }
}

fn live_blocks_and_zeroed_blocks_are_intact(rig: impl Fn() -> Rig, plan: Plan) {
    check(12, steps(), |steps| {
        let mut rig = rig();
        rig.purges.restart(plan);
        steps.iter().for_each(|step| rig.play(step));
    });
}

#[test]
fn blocks_are_intact_and_zeroed_blocks_are_zero_whenever_memory_is_purged() {
    live_blocks_and_zeroed_blocks_are_intact(Rig::delayed, Plan::Never);
}

#[test]
fn they_are_intact_if_memory_is_purged_at_once() {
    let eager = || Rig::new(PurgePolicy::after(Duration::ZERO, || NOW.get()));
    live_blocks_and_zeroed_blocks_are_intact(eager, Plan::Never);
}

#[test]
fn they_are_intact_if_purges_fail() {
    for plan in [Plan::From(1), Plan::Every(2), Plan::Every(3), Plan::Nth(5)] {
        live_blocks_and_zeroed_blocks_are_intact(Rig::delayed, plan);
    }
}
