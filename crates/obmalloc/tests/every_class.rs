//! Checks blocks of every size class of our own geometry, small and above.

use std::{collections::BTreeMap, time::Duration};

use obmalloc::{BlockPtr, Geometry, Heap, Native, SizeClass};
use proptest::{collection::vec, prelude::*};
use raw_mem::{Malloc, MmapArenas, RetainingArenas};
use testkit::property::check;

type TestHeap = Heap<MmapArenas, Malloc, Native>;

/// A heap and its live blocks. Each block is filled with its own byte.
struct Rig {
    heap: TestHeap,
    live: BTreeMap<usize, Live>,
    count: u8,
    /// True if new pools of small blocks begin as they do in CPython.
    is_shifted: bool,
}

struct Live {
    block: BlockPtr,
    size: usize,
    byte: u8,
}

#[derive(Clone, Debug)]
enum Op {
    Alloc { size: usize },
    AllocZeroed { size: usize },
    AllocAligned { size: usize, align: u32 },
    Free { nth: usize },
    BeginBlocksAsInCPython,
}

fn op() -> impl Strategy<Value = Op> {
    // Sizes are spread evenly over their magnitudes.
    let size = || {
        (0_u32..19, 0.0..1.0).prop_map(|(bits, part)| {
            (((1 << bits) as f64 * (1.0 + part)) as usize).min(Native::SIZES.arena_threshold)
        })
    };
    prop_oneof![
        200 => size().prop_map(|size| Op::Alloc { size }),
        100 => size().prop_map(|size| Op::AllocZeroed { size }),
        50 => (size(), 5_u32..20).prop_map(|(size, align)| Op::AllocAligned { size, align }),
        300 => any::<usize>().prop_map(|nth| Op::Free { nth }),
        1 => Just(Op::BeginBlocksAsInCPython),
    ]
}

impl Rig {
    fn new() -> Self {
        let heap = Heap::with_geometry(MmapArenas::new(), Malloc);
        Self { heap, live: BTreeMap::new(), count: 0, is_shifted: false }
    }

    fn play(&mut self, op: &Op) {
        match *op {
            Op::Alloc { size } => {
                let class = SizeClass::of(size).unwrap();
                let block = self.heap.alloc(class).unwrap();
                self.add(block, class);
            }
            Op::AllocZeroed { size } => {
                let class = SizeClass::of(size).unwrap();
                let block = self.heap.alloc_zeroed(class, size).unwrap();
                // SAFETY: the block was allocated just now, and these bytes are initialised.
                let bytes = unsafe { std::slice::from_raw_parts(block.start().as_ptr(), size) };
                assert!(bytes.iter().all(|byte| *byte == 0), "{size} bytes are not zero");
                self.add(block, class);
            }
            Op::AllocAligned { size, align } => {
                let class = SizeClass::<Native>::of(size).unwrap();
                let align = 1 << align;
                let Some(block) = self.heap.alloc_aligned(class, align) else {
                    assert!(class.is_linked() || self.is_shifted);
                    return;
                };
                assert_eq!(block.start().addr().get() % align, 0, "{size} bytes");
                self.add(block, class);
            }
            Op::Free { nth } => {
                if self.live.is_empty() {
                    return;
                }
                let start = *self.live.keys().nth(nth % self.live.len()).unwrap();
                self.free(start);
            }
            Op::BeginBlocksAsInCPython => {
                self.heap.begin_blocks_as_in_cpython();
                self.is_shifted = true;
            }
        }
    }

    fn add(&mut self, block: BlockPtr, class: SizeClass<Native>) {
        let (start, size) = (block.start().addr().get(), class.block_size());
        let natural = 1 << size.trailing_zeros().min(Native::SIZES.pool_size.ilog2());
        assert!(
            self.is_shifted || start.is_multiple_of(natural.min(1024)),
            "{class:?} at {start:x}"
        );
        assert!(class.is_linked() || start.is_multiple_of(natural), "{class:?} at {start:x}");
        let before = self.live.range(..start).next_back();
        assert!(before.is_none_or(|(before, live)| before + live.size <= start));
        assert!(self.live.range(start..).next().is_none_or(|(next, _)| start + size <= *next));
        // SAFETY: the block came from this heap.
        assert_eq!(unsafe { self.heap.block_size(&block) }, size);
        // SAFETY: the block was allocated just now, and has `size` bytes.
        unsafe { block.start().write_bytes(self.count, size) };
        self.live.insert(start, Live { block, size, byte: self.count });
        self.count = self.count.wrapping_add(1);
    }

    fn free(&mut self, start: usize) {
        let Live { block, size, byte } = self.live.remove(&start).unwrap();
        // SAFETY: the block is live, and all of its bytes are initialised.
        let bytes = unsafe { std::slice::from_raw_parts(block.start().as_ptr(), size) };
        assert!(bytes.iter().all(|found| *found == byte), "a block of {size} bytes was changed");
        // SAFETY: the block came from this heap, and is not used again.
        unsafe { self.heap.free(block) };
    }

    fn free_all(&mut self) {
        while let Some((&start, _)) = self.live.first_key_value() {
            self.free(start);
        }
    }
}

#[test]
fn blocks_of_every_class_keep_their_contents_and_every_rule_holds() {
    check(24, vec(op(), 1..400), |ops| {
        let mut rig = Rig::new();
        for (nth, op) in ops.iter().enumerate() {
            rig.play(op);
            if nth % 7 == 0 {
                rig.heap.check_invariants();
            }
        }
        rig.free_all();
        rig.heap.check_invariants();
        let stats = rig.heap.stats();
        assert_eq!((stats.bytes.in_use, stats.arenas.current.min(1)), (0, stats.arenas.current));
        rig.heap.trim();
        assert_eq!(rig.heap.stats().arenas.current, 0);
    });
}

#[derive(Clone, Debug)]
enum SpanOp {
    Alloc,
    AllocAligned { align: u32 },
    Free { nth: usize },
}

fn span_op() -> impl Strategy<Value = SpanOp> {
    prop_oneof![
        2 => Just(SpanOp::Alloc),
        1 => (16_u32..20).prop_map(|align| SpanOp::AllocAligned { align }),
        2 => any::<usize>().prop_map(|nth| SpanOp::Free { nth }),
    ]
}

/// Regression test: after the allocation of an aligned span, the heap counted other spans of the
/// class as retained although they were not, and arenas as kept mapped because of them.
#[test]
fn plain_and_aligned_spans_of_one_class_keep_every_rule() {
    check(400, (2_usize..=6, vec(span_op(), 100..300)), |(units, ops)| {
        let class = SizeClass::of(units * Native::SIZES.pool_size).unwrap();
        let decay = Duration::from_secs(1);
        let source = RetainingArenas::with_clock(MmapArenas::new(), decay, || Duration::ZERO);
        let mut heap = Heap::<_, _, Native>::with_geometry(source, Malloc);
        let mut live = Vec::new();
        for op in ops {
            match op {
                SpanOp::Alloc => live.push(heap.alloc(class).unwrap()),
                SpanOp::AllocAligned { align } => {
                    live.push(heap.alloc_aligned(class, 1 << align).unwrap());
                }
                SpanOp::Free { .. } if live.is_empty() => {}
                SpanOp::Free { nth } => {
                    let block = live.swap_remove(nth % live.len());
                    // SAFETY: the block came from this heap, and is not used again.
                    unsafe { heap.free(block) };
                }
            }
            heap.check_invariants();
        }
        for block in live {
            // SAFETY: the block came from this heap, and is not used again.
            unsafe { heap.free(block) };
        }
        heap.check_invariants();
    });
}

#[test]
fn a_block_in_any_unit_of_its_pool_leads_to_the_pool() {
    for class in SizeClass::<Native>::all().filter(|class| class.units() > 1) {
        let mut rig = Rig::new();
        for _ in 0..2 * class.capacity() {
            let block = rig.heap.alloc(class).unwrap();
            // SAFETY: the block is in use.
            assert_eq!(unsafe { SizeClass::<Native>::at(block.start()) }, Some(class));
            rig.add(block, class);
        }
        assert_eq!(rig.heap.stats().classes()[class.index()].pools, 2);
        rig.heap.check_invariants();
        rig.free_all();
        rig.heap.check_invariants();
    }
}

#[test]
fn one_block_that_is_allocated_and_freed_in_turn_stays_in_its_pool() {
    for class in SizeClass::<Native>::all() {
        let mut rig = Rig::new();
        if class.is_span() {
            // A class does not retain the first span that it frees.
            let block = rig.heap.alloc(class).unwrap();
            // SAFETY: the block came from this heap, and is not used again.
            unsafe { rig.heap.free(block) };
        }
        let first = rig.heap.alloc(class).unwrap();
        let start = first.start();
        // SAFETY: the block came from this heap, and is not used again.
        unsafe { rig.heap.free(first) };
        for _ in 0..3 {
            let again = rig.heap.alloc_listed(class).expect("the free list has a block");
            assert_eq!(again.start(), start, "{class:?}");
            // SAFETY: as above.
            unsafe { rig.heap.free(again) };
        }
    }
}

#[test]
fn the_largest_blocks_share_an_arena_in_pairs() {
    let class = SizeClass::<Native>::of(Native::SIZES.arena_threshold).unwrap();
    let mut rig = Rig::new();
    for _ in 0..6 {
        let block = rig.heap.alloc(class).unwrap();
        rig.add(block, class);
    }
    assert_eq!(rig.heap.stats().arenas.current, 3);
    rig.free_all();
}
