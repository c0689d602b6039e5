//! A cache that cuts objects out of larger blocks, and retains every block until the cache is
//! compacted or dropped.
//!
//! ```text
//!   blocks ──► ┌──────┬────────┬────────┬────────┐    ┌──────┬────────┬───
//!              │ next │ object │ object │ object │ ─► │ next │ object │
//!              └──────┴────────┴────────┴────────┘    └──────┴────────┴───
//!                       in use   free ◄─── stack ────────── free
//! ```
//!
//! 1. Every object in the stack lies in one of the blocks.
//! 2. A block returns to the allocator below the cache only in `compact`, or when the cache is
//!    dropped.

use core::{cell::Cell, fmt, marker::PhantomData, mem, ptr::NonNull};

use raw_mem::MemAlloc;

use super::sort;
use crate::{
    cache::{Cache, StorageSource, show},
    list::{BoundedStack, CacheStats, Chain, Cleared, FreeObject, Storage},
};

/// A cache of storage for objects of type `T`. The storage is cut out of blocks of at most `BLOCK`
/// bytes.
///
/// The cache retains every block until [`compact`](Self::compact) is called or the cache is
/// dropped. Within a new block, the object with the highest address is handed out first.
///
/// CPython 2: `PyIntBlock` and `PyFloatBlock`. Each of these blocks takes 1,000 bytes, including
/// the bytes that malloc adds for itself. A block consists of a link of 8 bytes, followed by 41
/// objects of 24 bytes. `compact` does the same as `PyInt_ClearFreeList`. Source:
/// `Objects/intobject.c` and `Objects/floatobject.c` of 2.7.
///
/// ```
/// use object_cache::{Cached, cpython::BlockCache};
/// use raw_mem::Malloc;
///
/// let ints = BlockCache::<[u64; 3], _>::new(Malloc);
/// let one = Cached::new_in([1, 1, 1], &ints).unwrap();
/// assert_eq!((ints.blocks(), ints.stats().free), (1, 40));
/// drop(one);
/// assert_eq!(ints.compact().objects, 41);
/// ```
pub struct BlockCache<T, A: MemAlloc, const BLOCK: usize = 1000> {
    /// # Invariant
    ///
    /// Every object in the stack is storage for a `T` that lies in one of the cache's blocks and
    /// holds no value.
    stack: BoundedStack<FreeObject>,
    /// # Invariant
    ///
    /// Every block came from `lower`, and the first word of each block is the link to the next
    /// block.
    blocks: Cell<Chain<FreeObject>>,
    block_count: Cell<usize>,
    lower: A,
    of: PhantomData<fn() -> T>,
}

// SAFETY: the cache owns its blocks. Because `A` is `Send`, another thread may free these blocks.
unsafe impl<T, A: MemAlloc + Send, const BLOCK: usize> Send for BlockCache<T, A, BLOCK> {}

impl<T, A: MemAlloc, const BLOCK: usize> BlockCache<T, A, BLOCK> {
    const OBJECT: Storage = Storage::of::<T>();

    /// The distance from one object to the next, in bytes.
    const STEP: usize = Self::OBJECT.bytes.next_multiple_of(Self::OBJECT.align);

    /// The offset of the first object, in bytes.
    const FIRST: usize = Storage::of::<()>().bytes.next_multiple_of(Self::OBJECT.align);

    /// The number of objects in a block.
    pub const OBJECTS: usize = {
        assert!(BLOCK >= Self::FIRST + Self::STEP, "a block must hold at least one object");
        (BLOCK - Self::FIRST) / Self::STEP
    };

    const WHOLE: Storage =
        Storage::new(Self::FIRST + Self::OBJECTS * Self::STEP, Self::OBJECT.align);

    /// Makes a cache without blocks. Allocates nothing.
    pub const fn new(lower: A) -> Self {
        Self {
            stack: BoundedStack::new(u32::MAX),
            blocks: Cell::new(Chain::EMPTY),
            block_count: Cell::new(0),
            lower,
            of: PhantomData,
        }
    }

    /// Allocates a new block. Puts all objects of the block except the last one into the stack, and
    /// returns the last one.
    #[cold]
    #[inline(never)]
    fn take_from_new_block(&self) -> Option<NonNull<T>> {
        self.stack.count_miss();
        let block = Self::WHOLE.allocate(&self.lower)?;
        // INVARIANT: the block has just come from `lower`.
        self.put_block(block.cast());
        self.block_count.set(self.block_count.get() + 1);
        // SAFETY: the object lies in the block.
        let object = |index| unsafe { block.add(Self::FIRST + index * Self::STEP) };
        for index in 0..Self::OBJECTS - 1 {
            // SAFETY: the object was never handed out. The stack has room for every object.
            // INVARIANT: the object lies in the new block.
            let _ = unsafe { self.stack.put(object(index).cast()) };
        }
        Some(object(Self::OBJECTS - 1).cast())
    }

    /// Finds all blocks in which every object is free, and returns these blocks to the allocator
    /// below the cache.
    ///
    /// Takes O(n log n) steps for n free objects and blocks, and allocates no memory. The free
    /// objects and the blocks are sorted by address in place. A single pass over both sorted chains
    /// then finds the free objects of each block.
    ///
    /// The allocator below the cache may use the cache while it frees a block. If that allocator
    /// panics, the blocks that it has not received yet stay in the cache.
    pub fn compact(&self) -> Cleared {
        let mut remaining = Remaining::<T, A, BLOCK> {
            free: sort::by_address(self.stack.drain().0),
            blocks: sort::by_address(self.blocks.replace(Chain::EMPTY)),
            cache: self,
        };
        let mut returned = 0;
        while let Some(block) = remaining.blocks.pop() {
            let (inside, count) = remaining.take_free_of(block);
            if count < Self::OBJECTS {
                self.put_block(block);
                self.put_all(inside);
                continue;
            }
            self.block_count.set(self.block_count.get() - 1);
            returned += 1;
            // SAFETY: the block came from `lower` and has left its chain. Every object in the block
            // is free and has left the stack, so nobody uses the block again.
            unsafe { self.lower.free(Some(block.cast())) };
        }
        Cleared { objects: returned * Self::OBJECTS, bytes: returned * Self::WHOLE.bytes }
    }

    /// Adds a block to the cache. The block must not be in a chain of blocks.
    fn put_block(&self, block: NonNull<FreeObject>) {
        let mut blocks = self.blocks.replace(Chain::EMPTY);
        // SAFETY: the cache owns the block, which begins with room for a link.
        unsafe { blocks.push(block) };
        self.blocks.set(blocks);
    }

    /// Puts the objects of `free` into the stack. Each object must lie in a block of the cache, and
    /// must not be in the stack already.
    fn put_all(&self, free: Chain<FreeObject>) {
        free.for_each(|object| {
            // SAFETY: the object has left its chain. The stack has room for it.
            let _ = unsafe { self.stack.put(object) };
        });
    }

    /// Returns the number of blocks.
    pub fn blocks(&self) -> usize {
        self.block_count.get()
    }

    /// Returns the figures of the cache. A miss is a call of `take` that found no free object, and
    /// therefore allocated a new block.
    pub fn stats(&self) -> CacheStats {
        self.stack.stats(Self::STEP)
    }
}

/// The blocks and free objects that a compaction has removed from the cache, but has not examined
/// yet. If this value is dropped, the blocks and objects go back into the cache.
struct Remaining<'c, T, A: MemAlloc, const BLOCK: usize> {
    /// In ascending order of address.
    free: Chain<FreeObject>,
    /// In ascending order of address.
    blocks: Chain<FreeObject>,
    cache: &'c BlockCache<T, A, BLOCK>,
}

impl<T, A: MemAlloc, const BLOCK: usize> Remaining<'_, T, A, BLOCK> {
    /// Removes the free objects that lie in `block`, and returns these objects and their number.
    /// `block` must have been the first of the remaining blocks.
    ///
    /// The free objects are sorted, so an object whose address is lower than that of `block` lies
    /// in none of the remaining blocks. It lies in a block that another compaction has removed from
    /// the cache. Such an object goes back into the stack.
    fn take_free_of(&mut self, block: NonNull<FreeObject>) -> (Chain<FreeObject>, usize) {
        let start = block.addr().get();
        let end = start + BlockCache::<T, A, BLOCK>::WHOLE.bytes;
        let (mut before, mut inside, mut count) = (Chain::EMPTY, Chain::EMPTY, 0);
        while let Some(object) = self.free.first()
            && object.addr().get() < end
        {
            self.free.pop();
            if object.addr().get() < start {
                // SAFETY: the object has left its chain.
                unsafe { before.push(object) };
            } else {
                // SAFETY: the object has left its chain.
                unsafe { inside.push(object) };
                count += 1;
            }
        }
        self.cache.put_all(before);
        (inside, count)
    }
}

impl<T, A: MemAlloc, const BLOCK: usize> Drop for Remaining<'_, T, A, BLOCK> {
    fn drop(&mut self) {
        self.blocks.by_ref().for_each(|block| self.cache.put_block(block));
        self.cache.put_all(mem::replace(&mut self.free, Chain::EMPTY));
    }
}

// SAFETY: the objects of a block do not overlap, and each has the layout of a `T`. An object leaves
// the stack before `take` returns it, and comes back only through `put`. A block that contains an
// object in use stays allocated until the cache is dropped.
unsafe impl<T, A: MemAlloc, const BLOCK: usize> StorageSource<T> for BlockCache<T, A, BLOCK> {
    #[inline]
    fn take(&self) -> Option<NonNull<T>> {
        match self.stack.take() {
            Some(free) => Some(free.cast()),
            None => self.take_from_new_block(),
        }
    }

    #[inline]
    unsafe fn put(&self, storage: NonNull<T>) {
        // SAFETY: the caller gives up the storage, which holds no value (contract).
        // INVARIANT: the storage came from `take`, so it lies in a block. The stack has room for
        // it.
        let _ = unsafe { self.stack.put(storage.cast()) };
    }
}

impl<T, A: MemAlloc, const BLOCK: usize> Cache for BlockCache<T, A, BLOCK> {
    /// Calls [`compact`](BlockCache::compact).
    fn clear(&self) -> Cleared {
        self.compact()
    }

    fn each_list(&self, visit: &mut dyn FnMut(Option<usize>, CacheStats)) {
        visit(None, self.stats());
    }
}

impl<T, A: MemAlloc, const BLOCK: usize> fmt::Debug for BlockCache<T, A, BLOCK> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("BlockCache", self, f)
    }
}

impl<T, A: MemAlloc, const BLOCK: usize> Drop for BlockCache<T, A, BLOCK> {
    fn drop(&mut self) {
        self.blocks.replace(Chain::EMPTY).for_each(|block| {
            // SAFETY: the block came from `lower` (invariant of `blocks`). Its storage is not used
            // after the cache is dropped.
            unsafe { self.lower.free(Some(block.cast())) };
        });
    }
}

#[cfg(test)]
mod tests;
