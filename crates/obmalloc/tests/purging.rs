//! Free memory inside arenas in use is returned to the system. No block in use is affected.

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
    Alloc {
        size: usize,
        count: usize,
    },
    /// Frees all blocks except each `nth` one, in ascending or descending order.
    Thin {
        nth: usize,
        backward: bool,
    },
    /// Frees the live block with this number.
    Free {
        nth: usize,
    },
    Trim,
    Wait {
        milliseconds: u64,
    },
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
        assert!(
            self.live.insert(start.addr().get(), live).is_none(),
            "a block is handed out twice"
        );
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
                // These blocks make the heap take enough slow paths to check its clock.
                let class = SizeClass::of(9000).unwrap();
                for _ in 0..10 {
                    let blocks: Vec<_> = (0..8).map(|_| self.heap.alloc(class).unwrap()).collect();
                    for block in blocks {
                        // SAFETY: the block came from this heap, and is not used again.
                        unsafe { self.heap.free(block) };
                    }
                }
            }
        }
        self.heap.check_invariants();
        self.live.values().for_each(Live::check);
        self.check_walk();
    }

    /// Asserts that a walk visits the live blocks and no other.
    fn check_walk(&self) {
        let mut visited = 0;
        self.heap.for_each_block(|block| {
            let live = self.live.get(&block.start.addr().get());
            assert_eq!(live.map(|live| live.size), Some(block.size), "no other block is visited");
            visited += 1;
        });
        assert_eq!(visited, self.live.len(), "each live block is visited");
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

/// Tests that count pages in memory, as the system reports them.
#[cfg(target_os = "linux")]
mod resident {
    use std::{fs::File, os::unix::fs::FileExt};

    use super::*;

    const PAGE: usize = 4096;

    const BLOCKS: usize = 200_000;

    /// Returns the number of pages in memory in the arenas that contain `blocks`.
    fn resident_pages(blocks: &BTreeMap<usize, Live>) -> usize {
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let arena = Native::SIZES.arena_size;
        let mut arenas: Vec<_> = blocks.keys().map(|start| start / arena * arena).collect();
        arenas.dedup();
        let pages = arenas.iter().flat_map(|start| (*start..start + arena).step_by(PAGE));
        let is_present = |page: &usize| {
            let mut entry = [0; 8];
            pagemap.read_exact_at(&mut entry, (*page / PAGE) as u64 * 8).unwrap();
            u64::from_ne_bytes(entry) >> 63 != 0
        };
        pages.filter(is_present).count()
    }

    /// Returns the number of pages that hold a live block or the headers of an arena.
    fn needed_pages(blocks: &BTreeMap<usize, Live>) -> usize {
        let mut pages: Vec<_> = blocks
            .iter()
            .flat_map(|(start, live)| start / PAGE..(start + live.size).div_ceil(PAGE))
            .chain(blocks.keys().map(|start| start / Native::SIZES.arena_size * 256))
            .collect();
        pages.sort_unstable();
        pages.dedup();
        pages.len()
    }

    /// Returns a heap with 12 MiB of blocks of `size` bytes, of which only one in `keep_one_in` is
    /// still live.
    fn with_survivors(keep_one_in: usize, size: usize) -> Rig {
        let mut rig = Rig::delayed();
        (0..BLOCKS * 64 / size).for_each(|_| rig.alloc(size, false));
        rig.thin(keep_one_in, false);
        rig
    }

    /// Does the same as [`with_survivors`] with too little memory for an immediate purge.
    fn with_few_survivors(keep_one_in: usize) -> Rig {
        let mut rig = Rig::delayed();
        (0..BLOCKS / 4).for_each(|_| rig.alloc(64, false));
        rig.thin(keep_one_in, false);
        rig
    }

    #[test]
    fn after_a_trim_only_pages_with_a_live_block_are_in_memory() {
        for (keep_one_in, size) in [(10, 64), (100, 64), (1000, 64), (10_000, 16), (100, 480)] {
            let mut rig = with_survivors(keep_one_in, size);
            let before = resident_pages(&rig.live);
            let bytes = rig.heap.trim();
            rig.heap.check_invariants();
            let (after, needed) = (resident_pages(&rig.live), needed_pages(&rig.live));
            println!("1 in {keep_one_in} of {size}: {before}, then {after} of {needed} pages");
            assert_eq!(after, needed, "1 in {keep_one_in} blocks of {size} bytes");
            assert!(bytes >= (before - after) * PAGE, "{bytes} bytes were given back");
            assert_eq!(rig.heap.trim(), 0, "nothing is left to give back");
        }
    }

    #[test]
    fn medium_pools_and_spans_are_purged() {
        for size in [700, 3000, 5000, 8000] {
            let mut rig = with_survivors(40, size);
            rig.heap.trim();
            let (after, needed) = (resident_pages(&rig.live), needed_pages(&rig.live));
            println!("{size} bytes: {after} pages in memory, {needed} are needed");
            assert!(after <= needed + needed / 20, "{after} pages in memory, {needed} are needed");
        }
        let mut rig = with_survivors(3, 100_000);
        rig.heap.trim();
        assert_eq!(resident_pages(&rig.live), needed_pages(&rig.live));
    }

    #[test]
    fn after_the_decay_time_only_needed_pages_are_in_memory() {
        for keep_one_in in [100, 1000] {
            let mut rig = with_few_survivors(keep_one_in);
            (0..10).for_each(|_| rig.play(&Step::Wait { milliseconds: 150 }));
            let (after, needed) = (resident_pages(&rig.live), needed_pages(&rig.live));
            println!("1 in {keep_one_in}: {after} pages in memory, {needed} are needed");
            // The blocks that keep the heap busy also need the headers of an arena and eight units.
            assert!(after <= needed + 36, "{after} pages in memory, {needed} are needed");
        }
    }

    #[test]
    fn memory_that_was_used_a_moment_ago_is_not_purged() {
        let mut rig = with_few_survivors(1000);
        let before = resident_pages(&rig.live);
        (0..4).for_each(|_| rig.play(&Step::Wait { milliseconds: 100 }));
        assert_eq!(resident_pages(&rig.live), before);
    }

    #[test]
    fn free_units_beyond_the_limit_are_purged_in_the_next_sweep() {
        let purges = |limit| {
            let mut rig = Rig::new(PurgePolicy::after(SECOND, || NOW.get()).with_limit(limit));
            (0..BLOCKS / 4).for_each(|_| rig.alloc(64, false));
            rig.thin(1000, false);
            let before = resident_pages(&rig.live);
            (0..4).for_each(|_| rig.play(&Step::Wait { milliseconds: 100 }));
            resident_pages(&rig.live) < before
        };
        assert_eq!([64 << 10, 1 << 20, 4 << 20].map(purges), [true, true, false]);
    }

    #[test]
    fn most_of_what_is_dropped_at_once_is_purged_at_once() {
        let rig = with_survivors(1000, 64);
        let (after, needed) = (resident_pages(&rig.live), needed_pages(&rig.live));
        println!("{after} pages in memory, {needed} are needed");
        assert!(after - needed < BLOCKS * 64 / PAGE / 2, "{after} of {needed} pages");
    }

    #[test]
    fn what_is_dropped_again_is_not_purged_at_once_if_the_purged_pages_were_needed() {
        let mut rig = with_survivors(1000, 64);
        for _ in 0..2 {
            (0..BLOCKS).for_each(|_| rig.alloc(64, false));
            rig.thin(1000, false);
            let (after, needed) = (resident_pages(&rig.live), needed_pages(&rig.live));
            println!("{after} pages in memory, {needed} are needed");
            assert!(after - needed > BLOCKS * 64 / PAGE / 2, "{after} of {needed} pages");
        }
    }

    fn only_a_trim_purges(policy: PurgePolicy) {
        let mut rig = Rig::new(policy);
        (0..BLOCKS).for_each(|_| rig.alloc(64, false));
        rig.thin(1000, false);
        let before = resident_pages(&rig.live);
        (0..10).for_each(|_| rig.play(&Step::Wait { milliseconds: 900 }));
        assert_eq!(resident_pages(&rig.live), before);
        rig.heap.trim();
        assert_eq!(resident_pages(&rig.live), needed_pages(&rig.live));
    }

    #[test]
    fn without_a_policy_only_a_trim_purges() {
        only_a_trim_purges(PurgePolicy::NEVER);
    }

    #[test]
    fn a_policy_of_whole_arenas_leaves_parts_of_arenas_until_a_trim() {
        only_a_trim_purges(PurgePolicy::after(SECOND, || NOW.get()).of_whole_arenas());
    }

    thread_local! {
        static IS_SHORT: Cell<bool> = const { Cell::new(false) };
    }

    #[test]
    fn everything_goes_back_while_memory_is_short_whatever_the_decay_time_is() {
        let hour = PurgePolicy::after(3600 * SECOND, || NOW.get()).of_whole_arenas();
        for policy in [PurgePolicy::NEVER, hour] {
            let mut rig = Rig::new(policy.when_short(|| NOW.get(), |_| IS_SHORT.get()));
            IS_SHORT.set(false);
            (0..BLOCKS / 4).for_each(|_| rig.alloc(64, false));
            rig.thin(1000, false);
            let before = resident_pages(&rig.live);
            (0..4).for_each(|_| rig.play(&Step::Wait { milliseconds: 900 }));
            assert_eq!(resident_pages(&rig.live), before);
            IS_SHORT.set(true);
            rig.play(&Step::Wait { milliseconds: 1 });
            let (after, needed) = (resident_pages(&rig.live), needed_pages(&rig.live));
            // The blocks that keep the heap busy also need the headers of an arena and eight units.
            assert!(after <= needed + 36, "{after} pages in memory, {needed} are needed");
        }
    }

    #[test]
    fn a_heap_is_trimmed_at_most_twice_a_second_while_memory_is_short() {
        let mut rig = Rig::new(PurgePolicy::NEVER.when_short(|| NOW.get(), |_| true));
        let mut purges = Vec::new();
        for _ in 0..20 {
            (0..BLOCKS / 100).for_each(|_| rig.alloc(64, false));
            rig.thin(1000, false);
            rig.play(&Step::Wait { milliseconds: 100 });
            purges.push(rig.purges.tally().calls);
        }
        let trims = purges.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((3..=4).contains(&trims), "{trims} trims in two seconds: {purges:?}");
    }

    /// Regression test: the computations of when to walk and trim next overflowed.
    #[test]
    fn a_clock_may_jump_to_the_largest_duration() {
        const JUMP: Duration = Duration::MAX.checked_div(20).unwrap();
        fn jump() -> Duration {
            NOW.replace(NOW.get().saturating_add(JUMP))
        }
        let policy = PurgePolicy::after(SECOND, jump);
        for policy in [policy, policy.when_short(jump, |_| true)] {
            NOW.set(SECOND);
            let mut rig = Rig::new(policy);
            (0..BLOCKS / 100).for_each(|_| rig.alloc(64, false));
            rig.thin(1000, false);
            for _ in 0..64 * 30 {
                rig.heap.visit();
            }
            assert_eq!(NOW.get(), Duration::MAX);
            rig.heap.check_invariants();
        }
    }

    #[test]
    fn zeroed_blocks_on_purged_units_are_not_touched() {
        let class = SizeClass::of(60 << 10).unwrap();
        let mut rig = Rig::delayed();
        (0..12).for_each(|_| rig.alloc(60 << 10, false));
        rig.thin(12, false);
        rig.heap.trim();
        let before = resident_pages(&rig.live);
        let blocks: Vec<_> =
            (0..11).map(|_| rig.heap.alloc_zeroed(class, 60 << 10).unwrap()).collect();
        assert_eq!(resident_pages(&rig.live), before);
        for block in blocks {
            // SAFETY: the test owns the block, whose bytes are zero.
            let bytes = unsafe { slice::from_raw_parts(block.start().as_ptr(), 60 << 10) };
            assert!(bytes.iter().all(|byte| *byte == 0));
            // SAFETY: the block came from this heap, and is not used again.
            unsafe { rig.heap.free(block) };
        }
    }
}
