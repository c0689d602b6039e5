//! Plays operations into a real allocator, and lets the oracle judge each answer.
//!
//! ```text
//!   Op ──► Slots ──► Shadowed { allocator, Shadow } ──► Outcome
//! ```

use std::ptr::NonNull;

use raw_mem::{MemAlloc, calloc_size};

use crate::{
    op::{Op, Outcome, Slots, Subject},
    shadow::Shadow,
};

/// An allocator whose every answer is checked by a [`Shadow`].
#[derive(Debug)]
pub struct Shadowed<A> {
    alloc: A,
    shadow: Shadow,
}

impl<A: MemAlloc> Subject for Shadowed<A> {
    type Block = NonNull<u8>;

    fn malloc(&mut self, size: usize) -> Option<NonNull<u8>> {
        let block = self.alloc.malloc(size)?;
        // SAFETY: the allocator says that the block is ours.
        unsafe { self.shadow.given(block, size) }
        Some(block)
    }

    fn calloc(&mut self, count: usize, size: usize) -> Option<NonNull<u8>> {
        let block = self.alloc.calloc(count, size)?;
        let bytes = calloc_size(count, size).expect("a product that overflows is refused");
        // SAFETY: the allocator says that the block is ours, and zeroed.
        unsafe { self.shadow.given_zeroed(block, bytes) }
        Some(block)
    }

    fn realloc(&mut self, old: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        if let Some(old) = old {
            self.shadow.still_stands(old);
        }
        // SAFETY: `old` is in a slot, so it is live.
        let block = unsafe { self.alloc.realloc(old, size) };
        match (old, block) {
            // SAFETY: the allocator says that the block is ours.
            (None, Some(block)) => unsafe { self.shadow.given(block, size) },
            // SAFETY: the allocator says that the block is ours, in place of the old one.
            (Some(old), Some(block)) => unsafe { self.shadow.moved(old, block, size) },
            (Some(old), None) => self.shadow.still_stands(old),
            (None, None) => {}
        }
        block
    }

    fn free(&mut self, old: Option<NonNull<u8>>) {
        if let Some(old) = old {
            self.shadow.taken(old);
        }
        // SAFETY: `old` is null, or was in a slot, so it is live; the shadow has forgotten it.
        unsafe { self.alloc.free(old) }
    }
}

/// Plays operations into an allocator, with a shadow beside it.
///
/// Dropping a driver frees what is live.
#[derive(Debug)]
pub struct Driver<A: MemAlloc> {
    subject: Shadowed<A>,
    slots: Slots<NonNull<u8>>,
}

impl<A: MemAlloc> Driver<A> {
    /// A driver of `alloc`, which aligns its blocks to `align` bytes.
    pub fn new(alloc: A, align: usize) -> Self {
        Self { subject: Shadowed { alloc, shadow: Shadow::new(align) }, slots: Slots::default() }
    }

    /// Plays one operation.
    ///
    /// # Panics
    ///
    /// Panics when the allocator's answer breaks a rule of the [`shadow`](crate::shadow).
    pub fn step(&mut self, op: Op) -> Outcome<NonNull<u8>> {
        self.slots.play(&mut self.subject, op)
    }

    /// Plays `ops`, calling `after_each` with the operation and its outcome.
    ///
    /// # Panics
    ///
    /// As [`step`](Self::step).
    pub fn run(
        &mut self,
        ops: &[Op],
        mut after_each: impl FnMut(&mut Self, Op, Outcome<NonNull<u8>>),
    ) {
        for &op in ops {
            let outcome = self.step(op);
            after_each(self, op, outcome);
        }
    }

    /// Frees every live block.
    ///
    /// # Panics
    ///
    /// Panics when a block's contents were overwritten.
    pub fn free_all(&mut self) {
        self.slots.free_all(&mut self.subject);
    }

    /// How many slots were ever used: those that hold a block are below this.
    pub fn slots(&self) -> usize {
        self.slots.count()
    }

    /// The allocator that is driven.
    pub fn alloc(&self) -> &A {
        &self.subject.alloc
    }

    /// What is live, and what must stand in it.
    pub fn shadow(&self) -> &Shadow {
        &self.subject.shadow
    }
}

impl<A: MemAlloc> Drop for Driver<A> {
    fn drop(&mut self) {
        // A failed check has stopped the run; the memory may be anything then.
        if !std::thread::panicking() {
            self.free_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use raw_mem::Malloc;

    use super::*;
    use crate::{reference::Rules, workload};

    proptest! {
        #[test]
        fn malloc_keeps_the_rules_of_the_shadow(ops in workload::random(&Rules::POOLS_16K)) {
            let mut driver = Driver::new(Malloc, 16);
            driver.run(&ops, |driver, op, outcome| {
                assert!(outcome.given().is_some() || matches!(op, Op::Free { .. }));
                driver.shadow().check();
            });
            driver.free_all();
            prop_assert_eq!(driver.shadow().blocks(), 0);
        }
    }

    /// Hands out one and the same block, whatever is asked.
    struct Same(NonNull<u8>);

    // SAFETY: this one breaks its promise, which is what the test is about; the shadow notices
    // before any byte is touched twice.
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
    fn an_allocator_that_hands_out_a_live_block_is_found() {
        let mut word = 0_u128;
        let mut driver = Driver::new(Same(NonNull::from(&mut word).cast()), 16);
        driver.step(Op::Malloc { slot: 0, size: 8 });
        driver.step(Op::Malloc { slot: 1, size: 8 });
    }
}
