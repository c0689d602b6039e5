//! A cache that asks for blocks of many objects and keeps them.
//!
//! ```text
//!   blocks ──► ┌──────┬────────┬────────┬────────┐    ┌──────┬────────┬───
//!              │ next │ object │ object │ object │ ─► │ next │ object │
//!              └──────┴────────┴────────┴────────┘    └──────┴────────┴───
//!                       live     dead ◄─── free list ──────── dead
//! ```
//!
//! 1. Every object in the free list lies in one of the blocks.
//! 2. A block goes down only by [`BlockCache::compact`], and when the cache is dropped.

use core::{cell::Cell, marker::PhantomData, ptr::NonNull};

use raw_mem::MemAlloc;

use crate::{
    BareHome, Cache, Cleared, Home, Stats,
    dead_list::DeadList,
    drop_and_put,
    link::{Chain, Dead},
    sort,
    storage::Storage,
};

/// Cuts blocks of at most `BLOCK` bytes of the allocator `A` into storage for objects of type `T`,
/// and keeps all of it: blocks are never mixed with other types, and no dead object is given back
/// but by [`compact`](Self::compact).
///
/// Within a new block the highest address is handed out first.
///
/// CPython 2: `PyIntBlock` and `PyFloatBlock`, 1,000 bytes with what malloc adds, or 41 objects
/// of 24 bytes behind a link of 8; `compact` is what `PyInt_ClearFreeList` did.
///
/// ```
/// use object_cache::{BlockCache, Cached};
/// use raw_mem::Malloc;
///
/// type Int = [u64; 3];
/// let ints = BlockCache::<Int, Malloc, 1000>::new(Malloc);
/// let one = Cached::new_in([1, 1, 1], &ints).unwrap();
/// assert_eq!((ints.blocks(), ints.stats().free), (1, 40));
/// drop(one);
/// assert_eq!(ints.compact().objects, 41);
/// ```
pub struct BlockCache<T, A: MemAlloc, const BLOCK: usize = 1000> {
    /// # Invariant
    ///
    /// What is in the list is storage for a `T` in one of the blocks, and holds no value.
    list: DeadList<Dead>,
    /// # Invariant
    ///
    /// Each came from `lower`, and its first word is the link to the next.
    blocks: Cell<Chain<Dead>>,
    block_count: Cell<usize>,
    lower: A,
    of: PhantomData<fn() -> T>,
}

// SAFETY: the cache owns its blocks, as a `FreeList` owns what is in its list.
unsafe impl<T, A: MemAlloc + Send, const BLOCK: usize> Send for BlockCache<T, A, BLOCK> {}

impl<T, A: MemAlloc, const BLOCK: usize> BlockCache<T, A, BLOCK> {
    const OBJECT: Storage = Storage::of::<T>();

    /// Bytes from one object to the next.
    const STEP: usize = Self::OBJECT.bytes.next_multiple_of(Self::OBJECT.align);

    /// Where the first object begins.
    const FIRST: usize = Storage::of::<()>().bytes.next_multiple_of(Self::OBJECT.align);

    /// Objects in a block.
    pub const OBJECTS: usize = {
        assert!(BLOCK >= Self::FIRST + Self::STEP, "a block holds at least one object");
        (BLOCK - Self::FIRST) / Self::STEP
    };

    const WHOLE: Storage =
        Storage::new(Self::FIRST + Self::OBJECTS * Self::STEP, Self::OBJECT.align);

    /// A cache without blocks. Asks for nothing yet.
    pub const fn new(lower: A) -> Self {
        Self {
            list: DeadList::new(u32::MAX),
            blocks: Cell::new(Chain::EMPTY),
            block_count: Cell::new(0),
            lower,
            of: PhantomData,
        }
    }

    /// Takes storage for a `T`, uninitialised, which lasts no longer than the cache. `None` when
    /// no block has a dead object and no new block can be had.
    #[inline]
    pub fn take(&self) -> Option<NonNull<T>> {
        match self.list.take() {
            Some(dead) => Some(dead.cast()),
            None => self.take_from_new_block(),
        }
    }

    /// Puts all objects of a new block into the list, but for the last one, which is returned.
    #[cold]
    #[inline(never)]
    fn take_from_new_block(&self) -> Option<NonNull<T>> {
        self.list.missed();
        let block = Self::WHOLE.ask(&self.lower)?;
        let mut blocks = self.blocks.replace(Chain::EMPTY);
        // SAFETY: the block came from `lower` just now, and begins with room for a link.
        unsafe { blocks.push(block.cast()) };
        self.blocks.set(blocks);
        self.block_count.set(self.block_count.get() + 1);
        // SAFETY: the block is that long.
        let object = |index| unsafe { block.add(Self::FIRST + index * Self::STEP) };
        for index in 0..Self::OBJECTS - 1 {
            // SAFETY: the object was never handed out.
            // INVARIANT: it lies in the new block. The list has no bound to refuse it by.
            let _ = unsafe { self.list.put(object(index).cast()) };
        }
        Some(object(Self::OBJECTS - 1).cast())
    }

    /// Puts the storage of an object that is dead: its value was dropped, or never was.
    ///
    /// # Safety
    ///
    /// `storage` came from [`take`](Self::take) of this cache, holds no live value, and is not
    /// used again.
    #[inline]
    pub unsafe fn put(&self, storage: NonNull<T>) {
        // SAFETY: the caller gives the storage up, and it has room for a link.
        // INVARIANT: it came from `take`, so it lies in a block. The list has no bound.
        let _ = unsafe { self.list.put(storage.cast()) };
    }

    /// Gives down every block in which no object lives, and says how much it was.
    ///
    /// Takes O(n log n) steps for n dead objects and blocks, and no memory: both are sorted by
    /// address where they are, and then read side by side.
    pub fn compact(&self) -> Cleared {
        let mut dead = sort::by_address(self.list.drain().0);
        let mut kept = Chain::EMPTY;
        let mut given = 0;
        for block in sort::by_address(self.blocks.replace(Chain::EMPTY)) {
            let mut inside = Chain::EMPTY;
            let count = Self::move_dead_of(block, &mut dead, &mut inside);
            if count == Self::OBJECTS {
                // SAFETY: the block came from `lower`; every object in it is dead, and has left
                // the list.
                unsafe { self.lower.free(Some(block.cast())) };
                given += 1;
                continue;
            }
            // SAFETY: the block has left its chain.
            unsafe { kept.push(block) };
            inside.for_each(|object| {
                // SAFETY: the object has left its chain.
                let _ = unsafe { self.list.put(object) };
            });
        }
        self.blocks.set(kept);
        self.block_count.set(self.block_count.get() - given);
        Cleared { objects: given * Self::OBJECTS, bytes: given * Self::WHOLE.bytes }
    }

    /// Moves the objects in `block` from the front of `dead` to `inside`, and counts them. No
    /// object before the block is left in `dead`.
    fn move_dead_of(
        block: NonNull<Dead>,
        dead: &mut Chain<Dead>,
        inside: &mut Chain<Dead>,
    ) -> usize {
        let end = block.addr().get() + Self::WHOLE.bytes;
        let mut count = 0;
        while dead.first().is_some_and(|object| object.addr().get() < end) {
            let Some(object) = dead.pop() else { break };
            // SAFETY: the object has left its chain.
            unsafe { inside.push(object) };
            count += 1;
        }
        count
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.block_count.get()
    }

    /// The figures. A miss is a new block.
    pub fn stats(&self) -> Stats {
        self.list.stats(Self::STEP)
    }
}

// SAFETY: `drop_and_put` ends a life once.
unsafe impl<T, A: MemAlloc, const BLOCK: usize> Home<T> for BlockCache<T, A, BLOCK> {
    #[inline]
    unsafe fn retire(&self, object: NonNull<T>) {
        // SAFETY: the caller's promise.
        unsafe { drop_and_put(self, object) }
    }
}

// SAFETY: objects of a block do not overlap and have the layout of `T`; a dead object leaves the
// list before it is handed out, and comes back only through `put`.
unsafe impl<T, A: MemAlloc, const BLOCK: usize> BareHome<T> for BlockCache<T, A, BLOCK> {
    #[inline]
    fn take(&self) -> Option<NonNull<T>> {
        self.take()
    }

    #[inline]
    unsafe fn put(&self, storage: NonNull<T>) {
        // SAFETY: the caller's promise.
        unsafe { self.put(storage) }
    }
}

impl<T, A: MemAlloc, const BLOCK: usize> Cache for BlockCache<T, A, BLOCK> {
    /// [`compact`](BlockCache::compact)s.
    fn clear(&self) -> Cleared {
        self.compact()
    }

    fn each_list(&self, see: &mut dyn FnMut(Option<usize>, Stats)) {
        see(None, self.stats());
    }
}

impl<T, A: MemAlloc, const BLOCK: usize> Drop for BlockCache<T, A, BLOCK> {
    fn drop(&mut self) {
        self.blocks.replace(Chain::EMPTY).for_each(|block| {
            // SAFETY: `blocks`' invariant; storage lasts no longer than the cache.
            unsafe { self.lower.free(Some(block.cast())) };
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Below, Plan, below, failing};

    /// An int of CPython 2.
    type Int = [u64; 3];
    type Ints = BlockCache<Int, Below>;

    fn take(ints: &Ints, count: usize) -> std::vec::Vec<NonNull<Int>> {
        core::iter::from_fn(|| ints.take()).take(count).collect()
    }

    fn put(ints: &Ints, objects: &[NonNull<Int>]) {
        for &object in objects {
            // SAFETY: the objects of these tests come from the cache and hold no values.
            unsafe { ints.put(object) };
        }
    }

    #[test]
    fn a_block_is_that_of_cpython_2() {
        assert_eq!((Ints::OBJECTS, Ints::WHOLE.bytes), (41, 992));
        assert_eq!(BlockCache::<u128, Below, 64>::OBJECTS, 3, "the link takes 16 bytes here");
    }

    #[test]
    fn the_highest_address_of_a_new_block_comes_first() {
        let (below, live) = below();
        let ints = Ints::new(below);
        let objects = take(&ints, 41);
        assert!(objects.windows(2).all(|pair| pair[0].addr().get() == pair[1].addr().get() + 24));
        assert_eq!((ints.blocks(), live.count()), (1, 1));
        take(&ints, 1);
        assert_eq!(ints.blocks(), 2);
    }

    #[test]
    fn puts_give_nothing_down() {
        let (below, live) = below();
        let ints = Ints::new(below);
        put(&ints, &take(&ints, 200));
        assert_eq!((live.count(), ints.stats().free), (5, 205));
        assert_eq!((ints.stats().misses, ints.stats().overflows), (5, 0));
    }

    #[test]
    fn compaction_gives_down_the_blocks_in_which_nothing_lives() {
        let (below, live) = below();
        let ints = Ints::new(below);
        let objects = take(&ints, 3 * 41);
        // One object of the second block stays.
        let stays = objects[50];
        put(&ints, &objects[..50]);
        put(&ints, &objects[51..]);
        assert_eq!(ints.compact(), Cleared { objects: 82, bytes: 2 * 992 });
        assert_eq!((ints.blocks(), live.count(), ints.stats().free), (1, 1, 40));
        let again = take(&ints, 40);
        assert!(!again.contains(&stays));
        assert_eq!(ints.blocks(), 1, "the dead objects of the block that stays serve on");
        put(&ints, &again);
        put(&ints, &[stays]);
        assert_eq!(ints.compact(), Cleared { objects: 41, bytes: 992 });
        assert_eq!(live.count(), 0);
    }

    #[test]
    fn compacting_where_everything_lives_changes_nothing() {
        let ints = Ints::new(below().0);
        let objects = take(&ints, 41);
        assert_eq!((ints.compact(), ints.blocks()), (Cleared::default(), 1));
        put(&ints, &objects);
    }

    #[test]
    fn dropping_the_cache_gives_every_block_down() {
        let (below, live) = below();
        let ints = Ints::new(below);
        take(&ints, 100);
        drop(ints);
        assert_eq!(live.count(), 0);
    }

    #[test]
    fn without_memory_the_objects_at_hand_still_serve() {
        let ints = Ints::new(failing(Plan::From(2)).0);
        assert_eq!(take(&ints, 100).len(), 41);
    }
}
