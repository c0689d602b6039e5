use core::{cell::Cell, fmt, marker::PhantomData, mem, ptr::NonNull};

use raw_mem::MemAlloc;

use super::sort;
use crate::{
    cache::{Cache, StorageSource, show},
    list::{BoundedStack, CacheStats, Chain, Cleared, FreeObject, Storage},
};

/// A cache that divides blocks of at most `BLOCK` bytes into storage for objects of type `T`.
///
/// Blocks stay allocated until [`compact`](Self::compact) is called or the cache is dropped.
/// CPython 2.7: `PyIntBlock` (`Objects/intobject.c`) and `PyFloatBlock` (`Objects/floatobject.c`).
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
    /// Every object in the stack is storage for a `T` in one of the blocks, and holds no value.
    stack: BoundedStack<FreeObject>,
    /// # Invariant
    ///
    /// Every block came from `lower`, and begins with the link to the next block.
    blocks: Cell<Chain<FreeObject>>,
    block_count: Cell<usize>,
    lower: A,
    of: PhantomData<fn() -> T>,
}

// SAFETY: the cache owns its blocks, which another thread may free because `A` is `Send`.
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

    /// Creates a cache without blocks. Allocates nothing.
    pub const fn new(lower: A) -> Self {
        Self {
            stack: BoundedStack::new(u32::MAX),
            blocks: Cell::new(Chain::EMPTY),
            block_count: Cell::new(0),
            lower,
            of: PhantomData,
        }
    }

    /// Allocates a block, returns its last object, and puts the others into the stack.
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
            // SAFETY: the object is unused, and the stack has room.
            // INVARIANT: the object lies in the new block.
            let _ = unsafe { self.stack.put(object(index).cast()) };
        }
        Some(object(Self::OBJECTS - 1).cast())
    }

    /// Returns all blocks in which every object is free to the allocator below the cache.
    ///
    /// Takes O(n log n) time for n free objects and blocks. Allocates no memory.
    ///
    /// The allocator below may use the cache during the call. If it panics, the remaining blocks
    /// stay in the cache.
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
            // SAFETY: the block came from `lower`, and has left the cache with all of its objects.
            unsafe { self.lower.free(Some(block.cast())) };
        }
        Cleared { objects: returned * Self::OBJECTS, bytes: returned * Self::WHOLE.bytes }
    }

    /// Adds a block, which must not be in a chain, to the cache.
    fn put_block(&self, block: NonNull<FreeObject>) {
        let mut blocks = self.blocks.replace(Chain::EMPTY);
        // SAFETY: the cache owns the block, which begins with room for a link.
        unsafe { blocks.push(block) };
        self.blocks.set(blocks);
    }

    /// Puts `free` into the stack. Its objects must lie in this cache's blocks, and not yet in the
    /// stack.
    fn put_all(&self, free: Chain<FreeObject>) {
        free.for_each(|object| {
            // SAFETY: the object has left its chain, and the stack has room.
            let _ = unsafe { self.stack.put(object) };
        });
    }

    /// Returns the number of blocks.
    pub fn blocks(&self) -> usize {
        self.block_count.get()
    }

    /// Returns the figures of the cache. A miss is a `take` that had to allocate a block.
    pub fn stats(&self) -> CacheStats {
        self.stack.stats(Self::STEP)
    }
}

/// The blocks and free objects that a running compaction has removed from the cache, in ascending
/// order of address.
///
/// Dropping this value puts the blocks and objects back.
struct Remaining<'c, T, A: MemAlloc, const BLOCK: usize> {
    free: Chain<FreeObject>,
    blocks: Chain<FreeObject>,
    cache: &'c BlockCache<T, A, BLOCK>,
}

impl<T, A: MemAlloc, const BLOCK: usize> Remaining<'_, T, A, BLOCK> {
    /// Removes and counts the free objects in `block`, which must have been the first of the
    /// remaining blocks.
    ///
    /// While a compaction returns a block, the allocator below the cache may start an inner
    /// compaction of the same cache. The inner compaction does not find the blocks that the outer
    /// one has removed from the cache, but it can find free objects that lie in them. Both blocks
    /// and free objects are visited in ascending order of address, so only such an object can lie
    /// before `block`. We put it back into the cache's stack of free objects.
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

// SAFETY: objects do not overlap, and each has room for a `T`. `take` removes an object from the
// stack, and only `put` returns it. A block stays allocated while one of its objects is in use.
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
        // SAFETY: the storage holds no value and is not used again (contract). The stack has room.
        // INVARIANT: the storage came from `take`, so it lies in a block.
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
            // SAFETY: the block came from `lower` (invariant of `blocks`), and is not used again.
            unsafe { self.lower.free(Some(block.cast())) };
        });
    }
}

#[cfg(test)]
mod tests;
