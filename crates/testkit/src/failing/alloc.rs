use std::{
    collections::BTreeSet,
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use raw_mem::MemAlloc;

use super::faults::Faults;

/// An allocator whose requests fail when its [`Faults`] demand it.
///
/// Freeing or resizing a block that is not live panics. Clones share the faults and live blocks.
#[derive(Clone, Debug, Default)]
pub struct FailingAlloc<A> {
    alloc: A,
    faults: Faults,
    live: LiveBlocks,
}

impl<A> FailingAlloc<A> {
    /// Wraps `alloc`. `faults` decides which requests fail.
    pub fn new(alloc: A, faults: Faults) -> Self {
        Self { alloc, faults, live: LiveBlocks::default() }
    }

    /// Returns a view of the live blocks. The view also shows later changes.
    pub fn live(&self) -> LiveBlocks {
        self.live.clone()
    }

    fn allocate(&self, allocate: impl FnOnce(&A) -> Option<NonNull<u8>>) -> Option<NonNull<u8>> {
        if self.faults.call_fails() {
            return None;
        }
        allocate(&self.alloc).inspect(|&block| self.live.insert(block))
    }
}

// SAFETY: all memory comes from `alloc`. A call that fails on purpose changes no block.
unsafe impl<A: MemAlloc> MemAlloc for FailingAlloc<A> {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        self.allocate(|alloc| alloc.malloc(size))
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        self.allocate(|alloc| alloc.calloc(count, size))
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        self.allocate(|alloc| {
            // The block must leave the set first, because another thread may get its address at any
            // time.
            self.live.remove(ptr);
            // SAFETY: `ptr` is null or live, because `remove` panics for any other block.
            let block = unsafe { alloc.realloc(ptr, size) };
            if block.is_none() {
                ptr.inspect(|&old| self.live.insert(old));
            }
            block
        })
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        self.live.remove(ptr);
        // SAFETY: `ptr` is null or live, because `remove` panics for any other block.
        unsafe { self.alloc.free(ptr) }
    }
}

/// The live blocks of a [`FailingAlloc`]. Clones share the same set.
#[derive(Clone, Debug, Default)]
pub struct LiveBlocks(Arc<Mutex<BTreeSet<usize>>>);

impl LiveBlocks {
    /// Returns the number of live blocks.
    pub fn count(&self) -> usize {
        self.addresses().len()
    }

    /// Returns true if `block` is a live block of the allocator.
    pub fn contains(&self, block: NonNull<u8>) -> bool {
        self.addresses().contains(&block.addr().get())
    }

    fn insert(&self, block: NonNull<u8>) {
        assert!(self.addresses().insert(block.addr().get()), "{block:p} is handed out twice");
    }

    fn remove(&self, block: Option<NonNull<u8>>) {
        if let Some(block) = block {
            assert!(self.addresses().remove(&block.addr().get()), "{block:p} is not from here");
        }
    }

    fn addresses(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use raw_mem::Malloc;

    use super::*;
    use crate::failing::Plan;

    #[test]
    #[should_panic(expected = "is not from here")]
    fn resizing_a_block_of_another_allocator_is_detected() {
        let foreign = Malloc.malloc(8);
        // SAFETY: the foreign block breaks the contract on purpose. `realloc` panics before its use.
        let _ = unsafe { FailingAlloc::new(Malloc, Faults::default()).realloc(foreign, 16) };
    }

    #[test]
    fn a_block_stays_live_if_it_cannot_be_resized() {
        let alloc = FailingAlloc::new(Malloc, Faults::default());
        let block = alloc.malloc(8);
        // SAFETY: the block is live.
        assert_eq!(unsafe { alloc.realloc(block, isize::MAX as usize) }, None);
        assert!(alloc.live().contains(block.unwrap()));
        // SAFETY: the block is live, and not used again.
        unsafe { alloc.free(block) };
        assert_eq!(alloc.live().count(), 0);
    }

    #[test]
    #[should_panic(expected = "is not from here")]
    fn freeing_a_block_of_another_allocator_is_detected() {
        let foreign = Malloc.malloc(8);
        // SAFETY: the foreign block breaks the contract on purpose. `free` panics before its use.
        unsafe { FailingAlloc::new(Malloc, Faults::default()).free(foreign) }
    }

    #[test]
    fn a_refused_reallocation_leaves_the_block_live() {
        let faults = Faults::new(Plan::Nth(2));
        let alloc = FailingAlloc::new(Malloc, faults.clone());
        let block = alloc.malloc(8).unwrap();
        // SAFETY: the block is live. The request fails on purpose, so the block also stays live.
        assert_eq!(unsafe { alloc.realloc(Some(block), 16) }, None);
        assert!(alloc.live().contains(block));
        // SAFETY: the block is live and is not used again.
        unsafe { alloc.free(Some(block)) }
        assert_eq!(alloc.live().count(), 0);
    }
}
