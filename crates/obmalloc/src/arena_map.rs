//! Whose is this address: a radix tree over the bits above an arena's size.
//!
//! ```text
//!   address, 48 bits      ┌── root ──┬── leaf ──┬── inside the arena ──┐
//!                         │ 14 bits  │ 14 bits  │       20 bits        │
//!                             │          │
//!   root  ┌───┬───┬───┐◄──────┘          │
//!         │   │ ● │   │   a leaf for each 16 GiB in which an arena ever was
//!         └───┴─│─┴───┘                  │
//!   leaf  ┌───┬─▼─┬───┐◄─────────────────┘
//!         │ 0 │ 7 │ 0 │   the owner of each arena-sized slot, 0 for nobody's
//!         └───┴───┴───┘
//! ```
//!
//! Arenas are aligned to their size, so a slot is one arena or none, and an address one byte
//! outside of an arena is in another slot. A look-up reads the tree and nothing else: never the
//! memory that it asks about. CPython: `arena_map_root`, `address_in_range` (3.10 and later);
//! there an arena may straddle two slots, here it cannot.
//!
//! Readers need no lock. A leaf is published with Release and found with Acquire, because its
//! zeroes must be seen with it (the model `a_leaf_is_seen_whole_or_not_at_all`). An entry is
//! Relaxed: who asks about a block in use got the block from a thread that saw the entry written.
//! Nodes stay until the map goes.

use core::{marker::PhantomData, mem, num::NonZero, ptr, ptr::NonNull};

use raw_mem::MemAlloc;
use sync::atomic::{
    AtomicPtr, AtomicU32,
    Ordering::{self, Acquire, Relaxed, Release},
};

use crate::geometry::Geometry;

/// Whose an arena is. The map gives it no meaning.
pub type OwnerId = NonZero<u32>;

/// A slot of a leaf: an `OwnerId`, or 0.
type Entry = AtomicU32;
/// A slot of the root: a leaf, or null.
type Slot = AtomicPtr<Entry>;

/// The orderings of a map's operations, so that a test can show which are too weak.
#[derive(Clone, Copy, Debug)]
struct Orders {
    /// A node is put in its place.
    publish: Ordering,
    /// A node is found there.
    find: Ordering,
    /// Another thread was faster, and its node is used.
    lose: Ordering,
}

impl Orders {
    const SOUND: Self = Self { publish: Release, find: Acquire, lose: Acquire };
}

/// Which arena-sized slots of the address space are arenas, and whose.
///
/// The map does not store the allocator of its nodes: the operations that allocate or free nodes
/// are given it. Anyone may read a map. Changing one is unsafe, because whoever frees blocks
/// relies on its entries.
#[derive(Debug)]
pub struct ArenaMap<G> {
    /// # Invariant
    ///
    /// Null, or `ROOT_LEN` slots, each null or `LEAF_LEN` entries; all live as long as the map.
    root: AtomicPtr<Slot>,
    geometry: PhantomData<G>,
}

impl<G: Geometry> ArenaMap<G> {
    const ARENA_BITS: u32 = G::ARENA_SIZE.ilog2();
    const KEY_BITS: u32 = G::ADDRESS_BITS - Self::ARENA_BITS;
    const LEAF_BITS: u32 = Self::KEY_BITS.div_ceil(2);
    const LEAF_LEN: usize = 1 << Self::LEAF_BITS;
    const ROOT_LEN: usize = 1 << (Self::KEY_BITS - Self::LEAF_BITS);

    sync::const_unless_model! {
        /// An empty map, without nodes.
        pub fn new() -> Self {
            Self { root: AtomicPtr::new(ptr::null_mut()), geometry: PhantomData }
        }
    }

    /// The owner of the arena that `address` is in, if it is in one.
    #[inline]
    pub fn owner(&self, address: usize) -> Option<OwnerId> {
        self.owner_with(Orders::SOUND, address)
    }

    #[inline]
    fn owner_with(&self, orders: Orders, address: usize) -> Option<OwnerId> {
        let key = Self::key(address)?;
        OwnerId::new(self.find(orders, key)?.load(Relaxed))
    }

    /// Records the arena at `base` as `owner`'s. Returns false if `lower` has no memory for a node,
    /// or if `base` has more bits than the geometry's addresses. Nothing has changed then.
    ///
    /// # Safety
    ///
    /// - Every call on this map must pass the same allocator, because nodes are freed to it.
    /// - `base` must be the first byte of an arena whose blocks are `owner`'s. The arena must stay
    ///   mapped until the entry is [retracted](Self::retract).
    #[must_use]
    pub unsafe fn publish<A: MemAlloc>(&self, base: usize, owner: OwnerId, lower: &A) -> bool {
        self.publish_with(Orders::SOUND, base, owner, lower).is_some()
    }

    fn publish_with<A: MemAlloc>(
        &self,
        orders: Orders,
        base: usize,
        owner: OwnerId,
        lower: &A,
    ) -> Option<()> {
        let key = Self::key(base)?;
        let root = node(&self.root, orders, Self::ROOT_LEN, || Slot::new(ptr::null_mut()), lower)?;
        let leaf = node(Self::slot(root, key), orders, Self::LEAF_LEN, || Entry::new(0), lower)?;
        Self::entry(leaf, key).store(owner.get(), Relaxed);
        Some(())
    }

    /// Removes the entry of the arena at `base`.
    ///
    /// # Safety
    ///
    /// No block of the arena is in use. Such a block would be freed to another allocator.
    pub unsafe fn retract(&self, base: usize) {
        if let Some(entry) = Self::key(base).and_then(|key| self.find(Orders::SOUND, key)) {
            entry.store(0, Relaxed);
        }
    }

    /// The leaves that there are.
    pub fn leaves(&self) -> usize {
        self.slots().filter(|slot| !slot.load(Acquire).is_null()).count()
    }

    /// The bytes of the root, and of each leaf.
    pub const fn node_sizes(&self) -> (usize, usize) {
        (Self::ROOT_LEN * size_of::<Slot>(), Self::LEAF_LEN * size_of::<Entry>())
    }

    /// Removes every entry and frees all nodes to `lower`. O(size of the root).
    ///
    /// # Safety
    ///
    /// - `lower` must be the allocator that was passed to [`publish`](Self::publish).
    /// - No block of a published arena is in use.
    pub unsafe fn release<A: MemAlloc>(&mut self, lower: &A) {
        for slot in self.slots() {
            // SAFETY: `root`'s invariant; the map is borrowed alone, so nobody reads the leaf.
            unsafe { free_node(lower, slot.load(Acquire), Self::LEAF_LEN) };
        }
        let root = self.root.swap(ptr::null_mut(), Acquire);
        // SAFETY: as above, for the root.
        unsafe { free_node(lower, root, Self::ROOT_LEN) };
    }

    /// The bits of `address` above an arena's size; `None` when it has more than all of ours.
    #[inline]
    fn key(address: usize) -> Option<usize> {
        let key = address >> Self::ARENA_BITS;
        if key >> Self::KEY_BITS == 0 { Some(key) } else { None }
    }

    /// The entry for `key`, if its nodes exist.
    #[inline]
    fn find(&self, orders: Orders, key: usize) -> Option<&Entry> {
        let root = NonNull::new(self.root.load(orders.find))?;
        let leaf = NonNull::new(Self::slot(root, key).load(orders.find))?;
        Some(Self::entry(leaf, key))
    }

    #[inline]
    fn slot<'a>(root: NonNull<Slot>, key: usize) -> &'a Slot {
        // SAFETY: `root`'s invariant; a key has KEY_BITS bits, so its upper part is an index; and
        // every caller borrows the map longer than the slot.
        unsafe { root.add(key >> Self::LEAF_BITS).as_ref() }
    }

    #[inline]
    fn entry<'a>(leaf: NonNull<Entry>, key: usize) -> &'a Entry {
        // SAFETY: `root`'s invariant: a leaf has LEAF_LEN entries and lives as long as the map,
        // which every caller borrows longer than the entry.
        unsafe { leaf.add(key % Self::LEAF_LEN).as_ref() }
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        let root = NonNull::new(self.root.load(Acquire));
        (0..Self::ROOT_LEN).map_while(move |at| Some(Self::slot(root?, at << Self::LEAF_BITS)))
    }
}

/// defects D3: an arena in use was retracted through a shared reference, so its blocks were freed
/// to another allocator. defects D4: nodes were freed to an allocator that they were not from.
///
/// ```
/// # use obmalloc::{ArenaMap, Heap, KnownArenas, OwnerId, Pools16K};
/// # use raw_mem::{Malloc, MmapArenas, PageBlocks};
/// # type H = Heap<KnownArenas<MmapArenas, Malloc, Pools16K>, Malloc, Pools16K>;
/// let heap: H = Heap::new(KnownArenas::new(MmapArenas::new(), Malloc), Malloc);
/// let map: &ArenaMap<Pools16K> = heap.source().map();
/// assert_eq!((map.owner(5 << 40), map.leaves()), (None, 0));
/// ```
///
/// ```compile_fail,E0133
/// # use obmalloc::{ArenaMap, Heap, KnownArenas, OwnerId, Pools16K};
/// # use raw_mem::{Malloc, MmapArenas, PageBlocks};
/// # type H = Heap<KnownArenas<MmapArenas, Malloc, Pools16K>, Malloc, Pools16K>;
/// let heap: H = Heap::new(KnownArenas::new(MmapArenas::new(), Malloc), Malloc);
/// heap.source().map().retract(5 << 40);
/// ```
///
/// ```compile_fail,E0133
/// # use obmalloc::{ArenaMap, OwnerId, Pools16K};
/// # use raw_mem::PageBlocks;
/// let map = ArenaMap::<Pools16K>::new();
/// assert!(map.publish(5 << 40, OwnerId::MIN, &PageBlocks));
/// ```
///
/// ```compile_fail,E0133
/// # use obmalloc::{ArenaMap, OwnerId, Pools16K};
/// # use raw_mem::Malloc;
/// let mut map = ArenaMap::<Pools16K>::new();
/// map.release(&Malloc);
/// ```
#[cfg(doctest)]
struct SafeCodeOnlyReadsAMap;

impl<G: Geometry> Default for ArenaMap<G> {
    fn default() -> Self {
        Self::new()
    }
}

/// The node that `place` points to, made of `len` items whose bytes are zero if there is none.
fn node<A: MemAlloc, T>(
    place: &AtomicPtr<T>,
    orders: Orders,
    len: usize,
    zero: impl Fn() -> T,
    lower: &A,
) -> Option<NonNull<T>> {
    if let Some(node) = NonNull::new(place.load(orders.find)) {
        return Some(node);
    }
    let node = new_node(len, zero, lower)?;
    match place.compare_exchange(ptr::null_mut(), node.as_ptr(), orders.publish, orders.lose) {
        // INVARIANT: the node is whole, and stays.
        Ok(_) => Some(node),
        Err(other) => {
            // SAFETY: this node was not published, so nobody else knows it.
            unsafe { free_node(lower, node.as_ptr(), len) };
            NonNull::new(other)
        }
    }
}

fn new_node<A: MemAlloc, T>(len: usize, zero: impl Fn() -> T, lower: &A) -> Option<NonNull<T>> {
    let node = lower.calloc(len, size_of::<T>())?.cast::<T>();
    // A real entry or slot is the bytes of its value, and these are zero. Loom's is an object.
    if sync::IS_MODEL {
        for at in 0..len {
            // SAFETY: the node has room for `len` items.
            unsafe { node.add(at).write(zero()) };
        }
    }
    Some(node)
}

/// Frees a node, or nothing.
///
/// # Safety
///
/// `node` is null, or came from [`new_node`] with `len`, and is not used any more.
unsafe fn free_node<A: MemAlloc, T>(lower: &A, node: *mut T, len: usize) {
    if mem::needs_drop::<T>() && !node.is_null() {
        // SAFETY: the caller gives a node of `len` items up.
        unsafe { ptr::slice_from_raw_parts_mut(node, len).drop_in_place() };
    }
    // SAFETY: the caller gives a block of `lower` up, or null.
    unsafe { lower.free(NonNull::new(node.cast())) };
}

#[cfg(test)]
mod narrow {
    use raw_mem::Malloc;

    use super::*;

    /// Slots of 1 KiB in addresses of 14 bits: a root of 4 slots, leaves of 4 entries.
    #[derive(Clone, Copy, Debug, Default)]
    pub(super) struct Narrow;

    impl Geometry for Narrow {
        const NAME: &'static str = "narrow";
        const ALIGNMENT: usize = 16;
        const SMALL_THRESHOLD: usize = 64;
        const POOL_SIZE: usize = 256;
        const ARENA_SIZE: usize = 1 << 10;
        const ADDRESS_BITS: u32 = 14;
    }

    pub(super) const OWNER: OwnerId = OwnerId::new(7).unwrap();

    /// Publishes an arena that does not exist, with nodes from malloc.
    pub(super) fn publish<G: Geometry>(map: &ArenaMap<G>, base: usize) -> bool {
        // SAFETY: these tests pass the same allocator each time, and no block relies on the entry.
        unsafe { map.publish(base, OWNER, &Malloc) }
    }

    /// Retracts an arena.
    pub(super) fn retract<G: Geometry>(map: &ArenaMap<G>, base: usize) {
        // SAFETY: the arenas of these tests do not exist, so they have no blocks.
        unsafe { map.retract(base) };
    }

    /// Frees the nodes of a map.
    pub(super) fn release<G: Geometry>(mut map: ArenaMap<G>) {
        // SAFETY: the nodes are from malloc, and the arenas have no blocks.
        unsafe { map.release(&Malloc) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use raw_mem::NoAlloc;

    use super::{narrow::*, *};
    use crate::Pools16K;

    #[test]
    fn an_address_one_byte_outside_of_an_arena_is_nobodys() {
        let map = ArenaMap::<Pools16K>::new();
        let base = 5 << 40;
        assert!(publish(&map, base));
        assert_eq!(map.owner(base), Some(OWNER));
        assert_eq!(map.owner(base + (1 << 20) - 1), Some(OWNER));
        assert_eq!(map.owner(base - 1), None);
        assert_eq!(map.owner(base + (1 << 20)), None);
        retract(&map, base);
        assert_eq!(map.owner(base), None);
        release(map);
    }

    #[test]
    fn no_address_whatever_is_out_of_the_maps_bounds() {
        let map = ArenaMap::<Pools16K>::new();
        for address in [0, 1, 1 << 47, (1 << 48) - 1, 1 << 48, usize::MAX] {
            assert_eq!(map.owner(address), None);
        }
        assert!(!publish(&map, 1 << 48));
        assert!(publish(&map, (1 << 48) - (1 << 20)));
        assert_eq!(map.owner((1 << 48) - 1), Some(OWNER));
        assert_eq!(map.leaves(), 1);
        release(map);
    }

    #[test]
    fn without_memory_there_is_no_map_and_no_entry() {
        let map = ArenaMap::<Narrow>::new();
        // SAFETY: no node is allocated, and no block relies on the entry.
        assert!(!unsafe { map.publish(1 << 10, OWNER, &NoAlloc) });
        assert_eq!(map.owner(1 << 10), None);
        release(map);
    }
}

#[cfg(test)]
mod models {
    use raw_mem::Malloc;
    use sync::atomic::AtomicBool;

    use super::{narrow::*, *};

    /// A reader beside `publish`, which runs on the main thread: loom then tries the reader at
    /// every point of it.
    fn read_beside(orders: Orders) {
        let map = sync::Arc::new(ArenaMap::<Narrow>::new());
        let reader = {
            let map = sync::Arc::clone(&map);
            sync::thread::spawn(move || {
                let seen = map.owner_with(orders, 1 << 10);
                assert!(seen.is_none() || seen == Some(OWNER));
                assert_eq!(map.owner_with(orders, 2 << 10), None);
            })
        };
        assert!(map.publish_with(orders, 1 << 10, OWNER, &Malloc).is_some());
        assert_eq!(map.owner(1 << 10), Some(OWNER));
        reader.join().unwrap();
        release(sync::Arc::try_unwrap(map).unwrap());
    }

    #[test]
    fn a_leaf_is_seen_whole_or_not_at_all() {
        sync::model(|| read_beside(Orders::SOUND));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_leaf_published_relaxed_is_rejected() {
        sync::rejected(|| read_beside(Orders { publish: Relaxed, ..Orders::SOUND }));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_leaf_found_relaxed_is_rejected() {
        sync::rejected(|| read_beside(Orders { find: Relaxed, ..Orders::SOUND }));
    }

    /// mutants 19: the nodes were counted without having been seen.
    #[test]
    fn the_leaves_are_counted_beside_a_publication() {
        sync::model(|| {
            let map = sync::Arc::new(ArenaMap::<Narrow>::new());
            let reader = {
                let map = sync::Arc::clone(&map);
                sync::thread::spawn(move || assert!(map.leaves() <= 1))
            };
            assert!(publish(&map, 1 << 10));
            assert_eq!(map.leaves(), 1);
            reader.join().unwrap();
            release(sync::Arc::try_unwrap(map).unwrap());
        });
    }

    /// An arena is struck out by `give_back`, which says that it did; a reader hears of it.
    fn a_reader_learns_that_an_arena_is_gone(give_back: fn(&ArenaMap<Narrow>, &AtomicBool)) {
        let map = sync::Arc::new(ArenaMap::<Narrow>::new());
        assert!(publish(&map, 1 << 10));
        let given_back = sync::Arc::new(AtomicBool::new(false));
        let reader = {
            let (map, given_back) = (sync::Arc::clone(&map), sync::Arc::clone(&given_back));
            sync::thread::spawn(move || {
                let learned = given_back.load(Acquire);
                assert!(!learned || map.owner(1 << 10).is_none());
            })
        };
        give_back(&map, &given_back);
        reader.join().unwrap();
        release(sync::Arc::try_unwrap(map).unwrap());
    }

    #[test]
    fn an_arena_that_was_given_back_is_nobodys_for_whoever_learns_of_it() {
        sync::model(|| {
            a_reader_learns_that_an_arena_is_gone(|map, given_back| {
                retract(map, 1 << 10);
                given_back.store(true, Release);
            });
        });
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn an_arena_struck_out_after_it_is_said_is_rejected() {
        sync::rejected(|| {
            a_reader_learns_that_an_arena_is_gone(|map, given_back| {
                given_back.store(true, Release);
                retract(map, 1 << 10);
            });
        });
    }

    /// Two threads enter arenas of one leaf, which neither finds there.
    fn two_publish(publish: fn(&ArenaMap<Narrow>, usize)) {
        let map = sync::Arc::new(ArenaMap::<Narrow>::new());
        let other = {
            let map = sync::Arc::clone(&map);
            sync::thread::spawn(move || publish(&map, 1 << 10))
        };
        publish(&map, 2 << 10);
        other.join().unwrap();
        assert_eq!([1, 2].map(|nth| map.owner(nth << 10)), [Some(OWNER); 2]);
        release(sync::Arc::try_unwrap(map).unwrap());
    }

    #[test]
    fn two_threads_that_publish_into_one_leaf_lose_nothing() {
        sync::model(|| {
            two_publish(|map, base| assert!(publish(map, base)));
        });
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_leaf_of_another_taken_relaxed_is_rejected() {
        sync::rejected(|| {
            two_publish(|map, base| {
                let orders = Orders { lose: Relaxed, ..Orders::SOUND };
                assert!(map.publish_with(orders, base, OWNER, &Malloc).is_some());
            });
        });
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_node_stored_where_another_may_be_is_rejected() {
        sync::rejected(|| {
            two_publish(|map, base| {
                let root =
                    new_node(ArenaMap::<Narrow>::ROOT_LEN, || Slot::new(ptr::null_mut()), &Malloc);
                if map.root.load(Acquire).is_null() {
                    map.root.store(root.unwrap().as_ptr(), Release);
                }
                assert!(publish(map, base));
            });
        });
    }
}
