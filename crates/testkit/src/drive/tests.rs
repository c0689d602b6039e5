//! Tests of the driver, and of how the shadow reports a faulty allocator.

use proptest::prelude::*;
use raw_mem::Malloc;

use super::*;
use crate::{reference::Rules, workload};

#[derive(Default)]
struct Recorder {
    calls: Vec<String>,
    blocks: usize,
    refuses: bool,
}

impl Recorder {
    fn answer(&mut self, call: String) -> Option<usize> {
        self.calls.push(call);
        self.blocks += 1;
        (!self.refuses).then_some(self.blocks)
    }
}

impl Subject for Recorder {
    type Block = usize;

    fn malloc(&mut self, size: usize) -> Option<usize> {
        self.answer(format!("malloc {size}"))
    }

    fn calloc(&mut self, count: usize, size: usize) -> Option<usize> {
        self.answer(format!("calloc {count} {size}"))
    }

    fn realloc(&mut self, old: Option<usize>, size: usize) -> Option<usize> {
        self.answer(format!("realloc {old:?} {size}"))
    }

    fn free(&mut self, old: Option<usize>) {
        self.calls.push(format!("free {old:?}"));
    }
}

#[test]
fn allocating_into_a_full_slot_frees_its_block_first() {
    let mut driver = Driver::new(Recorder::default());
    driver.step(Op::Malloc { slot: 3, size: 8 });
    driver.step(Op::Calloc { slot: 3, count: 2, size: 4 });
    assert_eq!(driver.subject().calls, ["malloc 8", "free Some(1)", "calloc 2 4"]);
    assert_eq!(driver.live(), [3]);
}

#[test]
fn an_empty_slot_stands_for_null() {
    let mut driver = Driver::new(Recorder::default());
    driver.step(Op::Free { slot: 0 });
    driver.step(Op::Realloc { slot: 0, size: 8 });
    assert_eq!(driver.subject().calls, ["free None", "realloc None 8"]);
}

#[test]
fn a_refused_reallocation_leaves_the_old_block_in_its_slot() {
    let mut driver = Driver::new(Recorder::default());
    driver.step(Op::Malloc { slot: 0, size: 8 });
    driver.subject.refuses = true;
    assert_eq!(driver.step(Op::Realloc { slot: 0, size: 9 }), Outcome::Refused);
    driver.free_all();
    assert_eq!(driver.subject().calls.last().unwrap(), "free Some(1)");
    assert_eq!(driver.live(), [0; 0]);
}

proptest! {
    #[test]
    fn malloc_passes_the_checks_of_the_shadow(ops in workload::random(&Rules::POOLS_16K)) {
        let mut driver = Driver::new(Shadowed::new(Malloc, 16));
        for op in ops {
            let outcome = driver.step(op);
            assert!(outcome.block().is_some() || matches!(op, Op::Free { .. }));
            driver.subject().shadow().check();
        }
        driver.free_all();
        prop_assert_eq!(driver.subject().shadow().blocks(), 0);
    }
}

struct Same(NonNull<u8>);

// SAFETY: the blocks overlap on purpose. The shadow panics before the second one is used.
unsafe impl MemAlloc for Same {
    fn malloc(&self, _size: usize) -> Option<NonNull<u8>> {
        Some(self.0)
    }

    fn calloc(&self, _count: usize, _size: usize) -> Option<NonNull<u8>> {
        Some(self.0)
    }

    unsafe fn realloc(&self, _ptr: Option<NonNull<u8>>, _size: usize) -> Option<NonNull<u8>> {
        Some(self.0)
    }

    unsafe fn free(&self, _ptr: Option<NonNull<u8>>) {}
}

#[test]
#[should_panic(expected = "overlaps")]
fn an_allocator_that_hands_out_a_live_block_is_detected() {
    let mut word = 0_u128;
    let mut driver = Driver::new(Shadowed::new(Same(NonNull::from(&mut word).cast()), 16));
    driver.step(Op::Malloc { slot: 0, size: 8 });
    driver.step(Op::Malloc { slot: 1, size: 8 });
}
