//! A layer that does not always have memory.

use std::{
    collections::BTreeSet,
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use raw_mem::MemAlloc;

use super::Faults;

/// An allocator that counts its requests for memory (`malloc`, `calloc` and `realloc`), fails
/// those that its [`Faults`] name, and sees to it that it gets back only what it handed out.
/// Clones are one and the same allocator.
#[derive(Clone, Debug, Default)]
pub struct FailingAlloc<A> {
    alloc: A,
    faults: Faults,
    live: Arc<Mutex<BTreeSet<usize>>>,
}

impl<A> FailingAlloc<A> {
    /// `alloc`, failing as `faults` says.
    pub fn new(alloc: A, faults: Faults) -> Self {
        Self { alloc, faults, live: Arc::default() }
    }

    /// The blocks that are live now, as a handle that stays current.
    pub fn live(&self) -> LiveBlocks {
        LiveBlocks(Arc::clone(&self.live))
    }

    fn note(&self, given: Option<NonNull<u8>>) -> Option<NonNull<u8>> {
        if let Some(block) = given {
            assert!(lock(&self.live).insert(block.addr().get()), "{block:p} is handed out twice");
        }
        given
    }

    fn forget(&self, old: Option<NonNull<u8>>) {
        if let Some(block) = old {
            assert!(lock(&self.live).remove(&block.addr().get()), "{block:p} is not from here");
        }
    }
}

/// The live blocks of a [`FailingAlloc`].
#[derive(Clone, Debug)]
pub struct LiveBlocks(Arc<Mutex<BTreeSet<usize>>>);

impl LiveBlocks {
    /// How many there are.
    pub fn count(&self) -> usize {
        lock(&self.0).len()
    }

    /// Whether `block` is one of them.
    pub fn contains(&self, block: NonNull<u8>) -> bool {
        lock(&self.0).contains(&block.addr().get())
    }
}

fn lock(live: &Mutex<BTreeSet<usize>>) -> MutexGuard<'_, BTreeSet<usize>> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

// SAFETY: memory is the inner allocator's, unchanged; a refusal hands out nothing and changes
// nothing.
unsafe impl<A: MemAlloc> MemAlloc for FailingAlloc<A> {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        if self.faults.strike() { None } else { self.note(self.alloc.malloc(size)) }
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        if self.faults.strike() { None } else { self.note(self.alloc.calloc(count, size)) }
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        if self.faults.strike() {
            return None;
        }
        // SAFETY: the caller's promise.
        let block = unsafe { self.alloc.realloc(ptr, size) }?;
        self.forget(ptr);
        self.note(Some(block))
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        self.forget(ptr);
        // SAFETY: the caller's promise, and it is one of ours.
        unsafe { self.alloc.free(ptr) }
    }
}

#[cfg(test)]
mod tests {
    use raw_mem::Malloc;

    use super::*;
    use crate::failing::Plan;

    #[test]
    #[should_panic(expected = "is not from here")]
    fn a_block_of_another_allocator_is_found_on_free() {
        let foreign = Malloc.malloc(8);
        // SAFETY: the allocator refuses the block before anything is done with it.
        unsafe { FailingAlloc::new(Malloc, Faults::default()).free(foreign) }
    }

    #[test]
    fn a_refused_reallocation_leaves_the_block_live() {
        let faults = Faults::new(Plan::Nth(2));
        let alloc = FailingAlloc::new(Malloc, faults.clone());
        let block = alloc.malloc(8).unwrap();
        // SAFETY: the block is live, and stays so as the request fails.
        assert_eq!(unsafe { alloc.realloc(Some(block), 16) }, None);
        assert!(alloc.live().contains(block));
        // SAFETY: the block is live and not used again.
        unsafe { alloc.free(Some(block)) }
        assert_eq!(alloc.live().count(), 0);
    }
}
