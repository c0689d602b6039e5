//! Applies operations to an allocator or a model, and checks the blocks of allocators.

use std::ptr::NonNull;

use raw_mem::{MemAlloc, calloc_size};

use crate::{
    op::{Op, Outcome, Subject},
    shadow::Shadow,
};

/// A subject (an allocator or a model), and a table of its live blocks.
///
/// Dropping a driver frees every live block, unless the thread is panicking.
#[derive(Debug)]
pub struct Driver<S: Subject> {
    subject: S,
    slots: Vec<Option<S::Block>>,
}

impl<S: Subject> Driver<S> {
    /// Creates a driver for `subject` whose slots are all empty.
    pub fn new(subject: S) -> Self {
        Self { subject, slots: Vec::new() }
    }

    /// Applies one operation to the subject.
    ///
    /// # Panics
    ///
    /// Panics if a [`Shadowed`] allocator breaks a rule of the [`shadow`](crate::shadow) module.
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
    /// Panics under the same conditions as [`step`](Self::step).
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
        // After a failed check the heap may be corrupt, and a free could cause a second panic.
        if !std::thread::panicking() {
            self.free_all();
        }
    }
}

/// An allocator together with a [`Shadow`] that checks every result of the allocator.
#[derive(Debug)]
pub struct Shadowed<A> {
    alloc: A,
    shadow: Shadow,
}

impl<A: MemAlloc> Shadowed<A> {
    /// Wraps `alloc`, which must have no live blocks and must align to `align` bytes.
    pub fn new(alloc: A, align: usize) -> Self {
        Self { alloc, shadow: Shadow::new(align) }
    }

    /// Returns the allocator.
    pub fn alloc(&self) -> &A {
        &self.alloc
    }

    /// Returns the record of the allocator's live blocks.
    pub fn shadow(&self) -> &Shadow {
        &self.shadow
    }
}

impl<A: MemAlloc> Subject for Shadowed<A> {
    type Block = NonNull<u8>;

    fn malloc(&mut self, size: usize) -> Option<NonNull<u8>> {
        let block = self.alloc.malloc(size)?;
        // SAFETY: `malloc` returned a new block of `size` bytes, which nothing else accesses.
        unsafe { self.shadow.allocated(block, size) }
        Some(block)
    }

    fn calloc(&mut self, count: usize, size: usize) -> Option<NonNull<u8>> {
        let block = self.alloc.calloc(count, size)?;
        let bytes = calloc_size(count, size).expect("a product that overflows is refused");
        // SAFETY: `calloc` returned a new zeroed block of `bytes` bytes, used by nothing else.
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
            // SAFETY: `realloc` of null returned a new block of `size` bytes, used by nothing else.
            (None, Some(block)) => unsafe { self.shadow.allocated(block, size) },
            // SAFETY: `realloc` replaced `old` by a block of `size` bytes and copied its contents.
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
        // SAFETY: `old` is null or live, because `freed` panics for any other block.
        unsafe { self.alloc.free(old) }
    }
}

#[cfg(test)]
mod tests;
