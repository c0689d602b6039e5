//! Plays sequences of operations into an allocator or a model, and checks every block that an
//! allocator returns.
//!
//! ```text
//!   Op ──► Driver { slots } ─┬─► Shadowed { allocator, Shadow } ──► Outcome of an address
//!                            └─► Reference ───────────────────────► Outcome of a place
//! ```

use std::ptr::NonNull;

use raw_mem::{MemAlloc, calloc_size};

use crate::{
    op::{Op, Outcome, Subject},
    shadow::Shadow,
};

/// A subject, which is an allocator or a model of one, and a table of slots. Each slot holds one
/// live block of the subject or is empty.
///
/// Dropping a driver frees every live block, unless the thread is panicking.
#[derive(Debug)]
pub struct Driver<S: Subject> {
    subject: S,
    slots: Vec<Option<S::Block>>,
}

impl<S: Subject> Driver<S> {
    /// Creates a driver for `subject`. All slots are empty.
    pub fn new(subject: S) -> Self {
        Self { subject, slots: Vec::new() }
    }

    /// Plays one operation into the subject, and returns the outcome of the operation.
    ///
    /// # Panics
    ///
    /// Panics if the subject panics. A [`Shadowed`] allocator panics if it breaks a rule of the
    /// [`shadow`](crate::shadow) module.
    pub fn step(&mut self, op: Op) -> Outcome<S::Block> {
        if op.slot() >= self.slots.len() {
            self.slots.resize(op.slot() + 1, None);
        }
        let held = &mut self.slots[op.slot()];
        if matches!(op, Op::Malloc { .. } | Op::Calloc { .. })
            && let Some(old) = held.take()
        {
            self.subject.free(Some(old));
        }
        let block = match op {
            Op::Malloc { size, .. } => self.subject.malloc(size),
            Op::Calloc { count, size, .. } => self.subject.calloc(count, size),
            Op::Realloc { size, .. } => self.subject.realloc(*held, size),
            Op::Free { .. } => {
                self.subject.free(held.take());
                return Outcome::Freed;
            }
        };
        match block {
            Some(block) => Outcome::Allocated(*held.insert(block)),
            None => Outcome::Refused,
        }
    }

    /// Frees every live block, in the order of the slots.
    ///
    /// # Panics
    ///
    /// Panics if the subject panics, as in [`step`](Self::step).
    pub fn free_all(&mut self) {
        for block in self.slots.iter_mut().filter_map(Option::take) {
            self.subject.free(Some(block));
        }
    }

    /// Returns the slots that hold a block, in ascending order.
    pub fn live(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|&slot| self.slots[slot].is_some()).collect()
    }

    /// Returns the subject.
    pub fn subject(&self) -> &S {
        &self.subject
    }
}

impl<S: Subject> Drop for Driver<S> {
    fn drop(&mut self) {
        // If the thread is panicking, a check may have failed because the heap is corrupt. Freeing
        // blocks could then cause a second panic, so we do not free anything.
        if !std::thread::panicking() {
            self.free_all();
        }
    }
}

/// An allocator together with a [`Shadow`] that checks every answer of the allocator.
#[derive(Debug)]
pub struct Shadowed<A> {
    alloc: A,
    shadow: Shadow,
}

impl<A: MemAlloc> Shadowed<A> {
    /// Wraps `alloc` and creates its shadow. `alloc` must not have any live blocks yet, and must
    /// align its blocks to `align` bytes.
    pub fn new(alloc: A, align: usize) -> Self {
        Self { alloc, shadow: Shadow::new(align) }
    }

    /// Returns the allocator.
    pub fn alloc(&self) -> &A {
        &self.alloc
    }

    /// Returns the shadow, which records the allocator's live blocks and their expected contents.
    pub fn shadow(&self) -> &Shadow {
        &self.shadow
    }
}

impl<A: MemAlloc> Subject for Shadowed<A> {
    type Block = NonNull<u8>;

    fn malloc(&mut self, size: usize) -> Option<NonNull<u8>> {
        let block = self.alloc.malloc(size)?;
        // SAFETY: `malloc` returned a new block of `size` bytes. Only the driver's slot refers to
        // the block, and the driver never accesses its bytes.
        unsafe { self.shadow.allocated(block, size) }
        Some(block)
    }

    fn calloc(&mut self, count: usize, size: usize) -> Option<NonNull<u8>> {
        let block = self.alloc.calloc(count, size)?;
        let bytes = calloc_size(count, size).expect("a product that overflows is refused");
        // SAFETY: `calloc` returned a new, initialised block of `bytes` bytes. Only the driver's
        // slot refers to the block, and the driver never accesses its bytes.
        unsafe { self.shadow.allocated_zeroed(block, bytes) }
        Some(block)
    }

    fn realloc(&mut self, old: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        if let Some(old) = old {
            self.shadow.check_block(old);
        }
        // SAFETY: `old` is null or live, because `check_block` found it in the shadow.
        let block = unsafe { self.alloc.realloc(old, size) };
        match (old, block) {
            // SAFETY: `realloc` of null returned a new block of `size` bytes. Only the driver's
            // slot refers to the block, and the driver never accesses its bytes.
            (None, Some(block)) => unsafe { self.shadow.allocated(block, size) },
            // SAFETY: `realloc` returned a block of `size` bytes that replaces `old`, so `old` is
            // no longer used. `realloc` has copied the contents, so they are initialised.
            (Some(old), Some(block)) => unsafe { self.shadow.reallocated(old, block, size) },
            (Some(old), None) => self.shadow.check_block(old),
            (None, None) => {}
        }
        block
    }

    fn free(&mut self, old: Option<NonNull<u8>>) {
        if let Some(old) = old {
            self.shadow.freed(old);
        }
        // SAFETY: `old` is null or a live block. A live block was in the shadow until just now,
        // because `freed` panics for any other block.
        unsafe { self.alloc.free(old) }
    }
}

#[cfg(test)]
mod tests;
