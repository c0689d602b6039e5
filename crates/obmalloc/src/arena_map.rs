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
/// It does not know where its nodes' memory comes from: each call that may need some is told, and
/// it must be the same layer each time.
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

    /// Enters the arena at `base` as `owner`'s. False when `lower` has no memory for a leaf, or
    /// when `base` has more bits than the geometry's addresses; nothing has changed then.
    #[must_use]
    pub fn publish<A: MemAlloc>(&self, base: usize, owner: OwnerId, lower: &A) -> bool {
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

    /// Strikes out the arena at `base`, which was published.
    pub fn retract(&self, base: usize) {
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

    /// Forgets every arena and gives all nodes back to `lower`. O(size of the root).
    pub fn release<A: MemAlloc>(&mut self, lower: &A) {
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
}

#[cfg(all(test, not(loom)))]
mod tests {
    use raw_mem::{Malloc, NoAlloc};

    use super::{narrow::*, *};
    use crate::Pools16K;

    #[test]
    fn an_address_one_byte_outside_of_an_arena_is_nobodys() {
        let mut map = ArenaMap::<Pools16K>::new();
        let base = 5 << 40;
        assert!(map.publish(base, OWNER, &Malloc));
        assert_eq!(map.owner(base), Some(OWNER));
        assert_eq!(map.owner(base + (1 << 20) - 1), Some(OWNER));
        assert_eq!(map.owner(base - 1), None);
        assert_eq!(map.owner(base + (1 << 20)), None);
        map.retract(base);
        assert_eq!(map.owner(base), None);
        map.release(&Malloc);
    }

    #[test]
    fn no_address_whatever_is_out_of_the_maps_bounds() {
        let mut map = ArenaMap::<Pools16K>::new();
        for address in [0, 1, 1 << 47, (1 << 48) - 1, 1 << 48, usize::MAX] {
            assert_eq!(map.owner(address), None);
        }
        assert!(!map.publish(1 << 48, OWNER, &Malloc));
        assert!(map.publish((1 << 48) - (1 << 20), OWNER, &Malloc));
        assert_eq!(map.owner((1 << 48) - 1), Some(OWNER));
        assert_eq!(map.leaves(), 1);
        map.release(&Malloc);
    }

    #[test]
    fn without_memory_there_is_no_map_and_no_entry() {
        let mut map = ArenaMap::<Narrow>::new();
        assert!(!map.publish(1 << 10, OWNER, &NoAlloc));
        assert_eq!(map.owner(1 << 10), None);
        map.release(&Malloc);
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
        sync::Arc::try_unwrap(map).unwrap().release(&Malloc);
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

    /// An arena is struck out by `give_back`, which says that it did; a reader hears of it.
    fn a_reader_learns_that_an_arena_is_gone(give_back: fn(&ArenaMap<Narrow>, &AtomicBool)) {
        let map = sync::Arc::new(ArenaMap::<Narrow>::new());
        assert!(map.publish(1 << 10, OWNER, &Malloc));
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
        sync::Arc::try_unwrap(map).unwrap().release(&Malloc);
    }

    #[test]
    fn an_arena_that_was_given_back_is_nobodys_for_whoever_learns_of_it() {
        sync::model(|| {
            a_reader_learns_that_an_arena_is_gone(|map, given_back| {
                map.retract(1 << 10);
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
                map.retract(1 << 10);
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
        sync::Arc::try_unwrap(map).unwrap().release(&Malloc);
    }

    #[test]
    fn two_threads_that_publish_into_one_leaf_lose_nothing() {
        sync::model(|| {
            two_publish(|map, base| assert!(map.publish(base, OWNER, &Malloc)));
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
                assert!(map.publish(base, OWNER, &Malloc));
            });
        });
    }
}
