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
        // INVARIANT: the block came from `lower` just now.
        self.put_block(block.cast());
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
    ///
    /// The layer below may use the cache while it frees a block. If it panics, the blocks that have
    /// not been passed to it yet stay in the cache.
    pub fn compact(&self) -> Cleared {
        let mut rest = Remaining::<T, A, BLOCK> {
            dead: sort::by_address(self.list.drain().0),
            blocks: sort::by_address(self.blocks.replace(Chain::EMPTY)),
            cache: self,
        };
        let mut given = 0;
        while let Some(block) = rest.blocks.pop() {
            let (inside, count) = rest.take_dead_of(block);
            if count < Self::OBJECTS {
                self.put_block(block);
                self.put_all(inside);
                continue;
            }
            self.block_count.set(self.block_count.get() - 1);
            given += 1;
            // SAFETY: the block came from `lower` and has left its chain. Every object in it is
            // dead, and has left the list.
            unsafe { self.lower.free(Some(block.cast())) };
        }
        Cleared { objects: given * Self::OBJECTS, bytes: given * Self::WHOLE.bytes }
    }

    /// Puts a block that has left its chain before the others.
    fn put_block(&self, block: NonNull<Dead>) {
        let mut blocks = self.blocks.replace(Chain::EMPTY);
        // SAFETY: the block is in no chain, and begins with room for a link.
        unsafe { blocks.push(block) };
        self.blocks.set(blocks);
    }

    /// Puts dead objects that have left the list, each of which lies in a block.
    fn put_all(&self, dead: Chain<Dead>) {
        dead.for_each(|object| {
            // SAFETY: the object has left its chain. The list has no bound to refuse it by.
            let _ = unsafe { self.list.put(object) };
        });
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

/// What a compaction has taken out of a cache and not looked at yet. Dropping it puts everything
/// back.
struct Remaining<'c, T, A: MemAlloc, const BLOCK: usize> {
    /// Dead objects, in ascending order of address.
    dead: Chain<Dead>,
    /// Blocks, in ascending order of address.
    blocks: Chain<Dead>,
    cache: &'c BlockCache<T, A, BLOCK>,
}

impl<T, A: MemAlloc, const BLOCK: usize> Remaining<'_, T, A, BLOCK> {
    /// Takes out the dead objects of `block`, which was the first of the blocks, and counts them.
    ///
    /// Objects before the block lie in a block that another compaction has taken out. They go back
    /// into the list.
    fn take_dead_of(&mut self, block: NonNull<Dead>) -> (Chain<Dead>, usize) {
        let start = block.addr().get();
        let end = start + BlockCache::<T, A, BLOCK>::WHOLE.bytes;
        let (mut before, mut inside, mut count) = (Chain::EMPTY, Chain::EMPTY, 0);
        while let Some(object) = self.dead.pop_if(|object| object.addr().get() < end) {
            if object.addr().get() < start {
                // SAFETY: the object has left its chain.
                unsafe { before.push(object) };
            } else {
                // SAFETY: as above.
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
        while let Some(block) = self.blocks.pop() {
            self.cache.put_block(block);
        }
        self.cache.put_all(core::mem::replace(&mut self.dead, Chain::EMPTY));
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
    use std::{boxed::Box, cell::RefCell, rc::Rc, sync::Mutex, vec::Vec};

    use super::*;
    use crate::{
        Cached,
        testing::{Below, Hooked, Plan, below, failing, on_next_free, panic_of},
    };

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

    /// mutants 22: clearing did nothing when the cache was seen as a `Cache`.
    #[test]
    fn clearing_any_cache_clears_this_one() {
        let ints = Ints::new(below().0);
        put(&ints, &take(&ints, 1));
        assert_eq!(Cache::clear(&ints), Cleared { objects: 41, bytes: 992 });
        assert_eq!(ints.blocks(), 0);
    }

    type HookedInts = BlockCache<Int, Hooked>;
    type Live = Vec<Cached<Int, &'static HookedInts>>;

    /// A cache that a closure without a lifetime can use. LeakSanitizer reaches it through `MADE`.
    fn lasting(below: Hooked) -> &'static HookedInts {
        static MADE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
        let ints = Box::leak(Box::new(HookedInts::new(below)));
        MADE.lock().unwrap().push(core::ptr::from_mut(ints).expose_provenance());
        ints
    }

    fn live(ints: &'static HookedInts, count: usize) -> Live {
        (0..count as u64).map(|nth| Cached::new_in([nth; 3], ints).unwrap()).collect()
    }

    /// defects D6: a block that the cache asked for during a compaction was lost, and its objects
    /// were counted to the next block, which was freed under a live object.
    #[test]
    fn a_block_asked_for_during_a_compaction_is_kept() {
        let (hooked, blocks) = Hooked::new();
        let ints = lasting(hooked);
        let mut all = live(ints, 82);
        all.sort_by_key(|int| core::ptr::from_ref(&**int).addr());
        let lives = all.pop().unwrap();
        let value = *lives;
        drop(all);
        let made = Rc::new(RefCell::new(Live::new()));
        let more = Rc::clone(&made);
        on_next_free(move || more.borrow_mut().extend(live(ints, 40)));
        assert_eq!(ints.compact(), Cleared { objects: 41, bytes: 992 });
        assert_eq!((ints.blocks(), blocks.count(), ints.stats().free), (2, 2, 41));
        assert_eq!(ints.compact(), Cleared::default());
        assert_eq!((*lives, made.borrow().len()), (value, 40));
        drop((lives, made.take()));
        assert_eq!(ints.compact().objects, 82);
        assert_eq!((ints.blocks(), blocks.count(), ints.stats().free), (0, 0, 0));
    }

    /// defects D6: blocks that were not given down yet were lost when one was refused by a panic.
    #[test]
    fn a_compaction_that_panics_loses_nothing() {
        let (hooked, blocks) = Hooked::new();
        let ints = lasting(hooked);
        drop(live(ints, 123));
        on_next_free(|| panic!("a free that panics"));
        assert_eq!(panic_of(|| _ = ints.compact()), "a free that panics");
        assert_eq!((ints.blocks(), blocks.count(), ints.stats().free), (2, 2, 82));
        assert_eq!(ints.compact(), Cleared { objects: 82, bytes: 2 * 992 });
        assert_eq!((ints.blocks(), blocks.count(), ints.stats().free), (0, 0, 0));
    }

    /// The inner compaction sees dead objects whose block the outer one has taken out.
    #[test]
    fn a_compaction_within_another_loses_nothing() {
        let (hooked, blocks) = Hooked::new();
        let ints = lasting(hooked);
        let mut all = live(ints, 123);
        all.sort_by_key(|int| core::ptr::from_ref(&**int).addr());
        let late = all.split_off(60);
        drop(all);
        on_next_free(move || {
            drop(late);
            assert_eq!(ints.compact(), Cleared::default(), "their blocks are with the outer one");
        });
        assert_eq!(ints.compact(), Cleared { objects: 41, bytes: 992 });
        assert_eq!((ints.blocks(), ints.stats().free), (2, 82));
        assert_eq!(ints.compact(), Cleared { objects: 82, bytes: 2 * 992 });
        assert_eq!((ints.blocks(), blocks.count(), ints.stats().free), (0, 0, 0));
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
