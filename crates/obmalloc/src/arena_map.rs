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
use sync::{
    Made,
    atomic::{
        AtomicPtr, AtomicU32,
        Ordering::{self, Acquire, Relaxed, Release},
    },
};

use crate::geometry::Geometry;

/// Whose an arena is. The map gives it no meaning.
pub type OwnerId = NonZero<u32>;

/// A slot of a leaf.
#[derive(Debug)]
struct Entry {
    made: Made,
    /// An `OwnerId`, or 0.
    owner: AtomicU32,
}

impl Entry {
    fn new() -> Self {
        Self { made: Made::new(), owner: AtomicU32::new(0) }
    }
}

/// A slot of the root: a leaf, or null.
type Slot = AtomicPtr<Entry>;

/// Which arena-sized slots of the address space are arenas, and whose.
///
/// It does not know where its nodes' memory comes from: each call that may need some is told, and
/// it must be the same layer each time.
#[derive(Debug)]
pub struct ArenaMap<G> {
    /// # Invariant
    ///
    /// `ROOT_LEN` slots, each null or `LEAF_LEN` entries; all live as long as the map.
    root: NonNull<Slot>,
    geometry: PhantomData<G>,
}

// SAFETY: the tree is made of atomics, and nodes stay where they are until the map is released.
unsafe impl<G> Send for ArenaMap<G> {}
// SAFETY: as above.
unsafe impl<G> Sync for ArenaMap<G> {}

impl<G: Geometry> ArenaMap<G> {
    const ARENA_BITS: u32 = G::ARENA_SIZE.ilog2();
    const KEY_BITS: u32 = G::ADDRESS_BITS - Self::ARENA_BITS;
    const LEAF_BITS: u32 = Self::KEY_BITS.div_ceil(2);
    const LEAF_LEN: usize = 1 << Self::LEAF_BITS;
    const ROOT_LEN: usize = 1 << (Self::KEY_BITS - Self::LEAF_BITS);

    /// An empty map; `None` when `lower` has no memory for its root.
    pub fn new<A: MemAlloc>(lower: &A) -> Option<Self> {
        let root = new_node(lower, Self::ROOT_LEN, || Slot::new(ptr::null_mut()))?;
        // INVARIANT: all slots are null.
        Some(Self { root, geometry: PhantomData })
    }

    /// The owner of the arena that `address` is in, if it is in one.
    #[inline]
    pub fn owner(&self, address: usize) -> Option<OwnerId> {
        let key = address >> Self::ARENA_BITS;
        if key >> Self::KEY_BITS != 0 {
            return None;
        }
        let leaf = NonNull::new(self.slot(key).load(Acquire))?;
        OwnerId::new(Self::entry(leaf, key).owner.load(Relaxed))
    }

    /// Enters the arena at `base` as `owner`'s. False when `lower` has no memory for a leaf, or
    /// when `base` has more bits than the geometry's addresses; nothing has changed then.
    #[must_use]
    pub fn publish<A: MemAlloc>(&self, base: usize, owner: OwnerId, lower: &A) -> bool {
        let key = base >> Self::ARENA_BITS;
        if key >> Self::KEY_BITS != 0 {
            return false;
        }
        let Some(leaf) = self.leaf(key, lower) else { return false };
        Self::entry(leaf, key).owner.store(owner.get(), Relaxed);
        true
    }

    /// Strikes out the arena at `base`, which was published.
    pub fn retract(&self, base: usize) {
        let key = base >> Self::ARENA_BITS;
        if let Some(leaf) = NonNull::new(self.slot(key).load(Acquire)) {
            Self::entry(leaf, key).owner.store(0, Relaxed);
        }
    }

    /// The leaves that there are.
    pub fn leaves(&self) -> usize {
        (0..Self::ROOT_LEN)
            .filter(|at| !self.slot(at << Self::LEAF_BITS).load(Acquire).is_null())
            .count()
    }

    /// The bytes of the root, and of each leaf.
    pub const fn node_sizes(&self) -> (usize, usize) {
        (Self::ROOT_LEN * size_of::<Slot>(), Self::LEAF_LEN * size_of::<Entry>())
    }

    /// Gives all nodes back to `lower`. O(size of the root).
    pub fn release<A: MemAlloc>(self, lower: &A) {
        for at in 0..Self::ROOT_LEN {
            let leaf = self.slot(at << Self::LEAF_BITS).load(Acquire);
            // SAFETY: `root`'s invariant; the map is gone after this, so nobody reads the leaf.
            unsafe { free_node(lower, leaf, Self::LEAF_LEN) };
        }
        // SAFETY: as above, for the root.
        unsafe { free_node(lower, self.root.as_ptr(), Self::ROOT_LEN) };
    }

    /// The leaf for `key`, made if there is none.
    fn leaf<A: MemAlloc>(&self, key: usize, lower: &A) -> Option<NonNull<Entry>> {
        self.leaf_published_with(Release, key, lower)
    }

    fn leaf_published_with<A: MemAlloc>(
        &self,
        order: Ordering,
        key: usize,
        lower: &A,
    ) -> Option<NonNull<Entry>> {
        let slot = self.slot(key);
        if let Some(leaf) = NonNull::new(slot.load(Acquire)) {
            return Some(leaf);
        }
        let leaf = new_node(lower, Self::LEAF_LEN, Entry::new)?;
        match slot.compare_exchange(ptr::null_mut(), leaf.as_ptr(), order, Acquire) {
            // INVARIANT: the leaf is whole, and stays.
            Ok(_) => Some(leaf),
            Err(other) => {
                // SAFETY: this leaf was not published, so nobody else knows it.
                unsafe { free_node(lower, leaf.as_ptr(), Self::LEAF_LEN) };
                NonNull::new(other)
            }
        }
    }

    #[inline]
    fn slot(&self, key: usize) -> &Slot {
        // SAFETY: `root`'s invariant; a key has KEY_BITS bits, so its upper part is an index.
        unsafe { self.root.add(key >> Self::LEAF_BITS).as_ref() }
    }

    #[inline]
    fn entry<'a>(leaf: NonNull<Entry>, key: usize) -> &'a Entry {
        // SAFETY: `root`'s invariant: a leaf has LEAF_LEN entries and lives as long as the map,
        // which every caller borrows longer than the entry.
        let entry: &Entry = unsafe { leaf.add(key % Self::LEAF_LEN).as_ref() };
        entry.made.seen();
        entry
    }
}

/// An array of `len` items whose bytes are zero.
fn new_node<A: MemAlloc, T>(lower: &A, len: usize, zero: impl Fn() -> T) -> Option<NonNull<T>> {
    let node = lower.calloc(len, size_of::<T>())?.cast::<T>();
    // A real entry or slot is the bytes of its value, and these are zero. Loom's is an object.
    if cfg!(loom) {
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
mod tests {
    use raw_mem::{Malloc, NoAlloc};

    use super::*;
    use crate::Pools16K;

    /// Slots of 1 KiB in addresses of 14 bits: a root of 4 slots, leaves of 4 entries.
    #[derive(Clone, Copy, Debug, Default)]
    struct Narrow;

    impl Geometry for Narrow {
        const NAME: &'static str = "narrow";
        const ALIGNMENT: usize = 16;
        const SMALL_THRESHOLD: usize = 64;
        const POOL_SIZE: usize = 256;
        const ARENA_SIZE: usize = 1 << 10;
        const ADDRESS_BITS: u32 = 14;
    }

    const OWNER: OwnerId = OwnerId::new(7).unwrap();

    #[test]
    #[cfg_attr(loom, ignore = "loom has no room for a whole map")]
    fn an_address_one_byte_outside_of_an_arena_is_nobodys() {
        let map = ArenaMap::<Pools16K>::new(&Malloc).unwrap();
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
    #[cfg_attr(loom, ignore = "loom has no room for a whole map")]
    fn no_address_whatever_is_out_of_the_maps_bounds() {
        let map = ArenaMap::<Pools16K>::new(&Malloc).unwrap();
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
        sync::model(nothing_without_memory);
    }

    fn nothing_without_memory() {
        assert!(ArenaMap::<Narrow>::new(&NoAlloc).is_none());
        let map = ArenaMap::<Narrow>::new(&Malloc).unwrap();
        assert!(!map.publish(1 << 10, OWNER, &NoAlloc));
        assert_eq!(map.owner(1 << 10), None);
        map.release(&Malloc);
    }

    /// A reader beside `publish`, which runs on the main thread: loom then tries the reader at
    /// every point of it.
    fn read_beside(publish: impl FnOnce(&ArenaMap<Narrow>)) {
        let map = sync::Arc::new(ArenaMap::<Narrow>::new(&Malloc).unwrap());
        let reader = {
            let map = sync::Arc::clone(&map);
            sync::thread::spawn(move || {
                let seen = map.owner(1 << 10);
                assert!(seen.is_none() || seen == Some(OWNER));
                assert_eq!(map.owner(2 << 10), None);
            })
        };
        publish(&map);
        reader.join().unwrap();
        sync::Arc::try_unwrap(map).unwrap().release(&Malloc);
    }

    #[test]
    fn a_leaf_is_seen_whole_or_not_at_all() {
        sync::model(|| {
            read_beside(|map| {
                assert!(map.publish(1 << 10, OWNER, &Malloc));
                assert_eq!(map.owner(1 << 10), Some(OWNER));
            });
        });
    }

    #[test]
    fn a_leaf_published_relaxed_is_rejected() {
        sync::rejected(|| {
            read_beside(|map| assert!(map.leaf_published_with(Relaxed, 1, &Malloc).is_some()));
        });
    }

    #[test]
    fn two_threads_that_publish_into_one_leaf_lose_nothing() {
        sync::model(|| {
            let map = sync::Arc::new(ArenaMap::<Narrow>::new(&Malloc).unwrap());
            let publish = |base| {
                let map = sync::Arc::clone(&map);
                sync::thread::spawn(move || assert!(map.publish(base, OWNER, &Malloc)))
            };
            let publishers = [publish(1 << 10), publish(2 << 10)];
            publishers.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!([1, 2].map(|nth| map.owner(nth << 10)), [Some(OWNER); 2]);
            sync::Arc::try_unwrap(map).unwrap().release(&Malloc);
        });
    }
}
