//! Which addresses lie in an arena: a radix tree over the address bits above an arena's size.
//!
//! ```text
//!   address, 48 bits      ┌── root ──┬── leaf ──┬── inside the arena ──┐
//!                         │ 14 bits  │ 14 bits  │       20 bits        │
//!                             │          │
//!   root  ┌───┬───┬───┐◄──────┘          │
//!         │   │ ● │   │   a leaf for each 16 GiB in which an arena ever was
//!         └───┴─│─┴───┘                  │
//!   leaf  ┌───┬─▼─┬───┐◄─────────────────┘
//!         │ 0 │ 1 │ 0 │   1 for each arena-sized slot that is an arena
//!         └───┴───┴───┘
//! ```
//!
//! Arenas are aligned to their size, so a slot is one arena or none, and an address one byte outside
//! of an arena is in another slot. A look-up reads the tree only, never the memory that it asks about.
//! CPython: `arena_map_root`, `address_in_range` (from 3.10). There, an arena may span two slots.
//!
//! Most programs need one leaf only, because the system places mappings close to each other. The map
//! remembers its first leaf, so that most look-ups wait for one load that depends on the address
//! instead of three.
//!
//! Readers take no lock. A leaf is published with `Release` and found with `Acquire`, so that a reader
//! sees its zeroes (model `a_leaf_is_seen_whole_or_not_at_all`). Entries are read with `Relaxed`: a
//! thread that asks about a live block received the block from a thread that had already observed the
//! entry. Nodes live as long as the map.

use core::{marker::PhantomData, mem, ptr, ptr::NonNull};

use raw_mem::{ArenaSize, MapError, MemAlloc};
use sync::atomic::{
    AtomicBool, AtomicPtr, AtomicUsize,
    Ordering::{self, Acquire, Relaxed, Release},
};

use crate::geometry::{Geometry, shape::Shape};

/// A slot of a leaf: true if it is an arena.
type Entry = AtomicBool;
/// A slot of the root: a leaf, or null.
type Slot = AtomicPtr<Entry>;

/// The memory orderings of the operations, so that models can show which ones are too weak.
#[derive(Clone, Copy, Debug)]
struct Orders {
    /// Publishes a node.
    publish: Ordering,
    /// Finds a node.
    find: Ordering,
    /// Finds the node of another thread that published first.
    lose: Ordering,
}

impl Orders {
    const SOUND: Self = Self { publish: Release, find: Acquire, lose: Acquire };
}

/// The set of arena-sized slots of the address space that are arenas.
///
/// The map does not store the allocator of its nodes, so operations that allocate or free nodes take
/// it as an argument. Anyone may read a map. Changing one is unsafe, because code that frees blocks
/// relies on its entries.
#[derive(Debug)]
pub struct ArenaMap<G> {
    /// The number of the root's slot that leads to `first_leaf`, or `NO_SLOT`.
    ///
    /// # Invariant
    ///
    /// If this is not `NO_SLOT`, `first_leaf` is not null and does not change.
    first_slot: AtomicUsize,
    /// The leaf that was made first, or null.
    first_leaf: AtomicPtr<Entry>,
    /// # Invariant
    ///
    /// Null, or `ROOT_LEN` slots, each null or `LEAF_LEN` entries. All of them live as long as the
    /// map.
    root: AtomicPtr<Slot>,
    geometry: PhantomData<G>,
}

/// A number that no slot of a root has.
const NO_SLOT: usize = usize::MAX;

impl<G: Geometry> ArenaMap<G> {
    const ARENA_BITS: u32 = G::SIZES.arena_size.ilog2();
    const KEY_BITS: u32 = G::SIZES.address_bits - Self::ARENA_BITS;
    const LEAF_BITS: u32 = Self::KEY_BITS.div_ceil(2);
    const LEAF_LEN: usize = 1 << Self::LEAF_BITS;
    const ROOT_LEN: usize = 1 << (Self::KEY_BITS - Self::LEAF_BITS);

    sync::const_unless_model! {
        /// Creates an empty map without nodes.
        pub fn new() -> Self {
            Self {
                first_slot: AtomicUsize::new(NO_SLOT),
                first_leaf: AtomicPtr::new(ptr::null_mut()),
                root: AtomicPtr::new(ptr::null_mut()),
                geometry: PhantomData,
            }
        }
    }

    /// Returns true if `address` lies in an arena.
    #[inline]
    pub fn contains(&self, address: usize) -> bool {
        self.contains_with(Orders::SOUND, address)
    }

    #[inline]
    fn contains_with(&self, orders: Orders, address: usize) -> bool {
        let key = address >> Self::ARENA_BITS;
        if key >> Self::LEAF_BITS != self.first_slot.load(orders.find) {
            return self.contains_elsewhere(orders, address);
        }
        let leaf = self.first_leaf.load(Relaxed);
        debug_assert!(!leaf.is_null(), "the first leaf is there before its number");
        // SAFETY: by the invariant of `first_slot`, which `Acquire` lets us see.
        let leaf = unsafe { NonNull::new_unchecked(leaf) };
        Self::entry(leaf, key).load(Relaxed)
    }

    /// Returns true if `address` lies in an arena that the first leaf does not have.
    #[inline]
    fn contains_elsewhere(&self, orders: Orders, address: usize) -> bool {
        let entry = Self::key(address).and_then(|key| self.find(orders, key));
        entry.is_some_and(|entry| entry.load(Relaxed))
    }

    /// Adds the arena at `base`. Returns false if `lower` has no memory for a node, or if `base` has
    /// more bits than the geometry's addresses. Nothing has changed in that case.
    ///
    /// # Safety
    ///
    /// - Every call on this map must pass the same allocator, because nodes are freed to it.
    /// - `base` must be the first byte of an arena, which must stay mapped until it is
    ///   [retracted](Self::retract).
    /// - Whoever asks this map about a block must free a block of that arena to the arena's heap.
    #[must_use]
    pub unsafe fn publish<A: MemAlloc>(&self, base: usize, lower: &A) -> bool {
        self.publish_with(Orders::SOUND, base, lower).is_some()
    }

    /// [Publishes](Self::publish) an arena of `size` bytes that was just mapped. If that fails, calls
    /// `unmap` with it.
    ///
    /// # Errors
    ///
    /// Returns [`MapError::Exhausted`] if `size` is not the size of the geometry's arenas, because a
    /// smaller arena would make the map claim what lies beside it, or if there is no memory for a
    /// node.
    ///
    /// # Safety
    ///
    /// The contract of [`publish`](Self::publish) must hold for `arena`.
    pub unsafe fn publish_or_unmap<A: MemAlloc>(
        &self,
        arena: NonNull<u8>,
        size: ArenaSize,
        lower: &A,
        unmap: impl FnOnce(NonNull<u8>),
    ) -> Result<NonNull<u8>, MapError> {
        // SAFETY: the contract of this function.
        if size == Shape::<G>::ARENA && unsafe { self.publish(arena.addr().get(), lower) } {
            return Ok(arena);
        }
        unmap(arena);
        Err(MapError::Exhausted { size })
    }

    fn publish_with<A: MemAlloc>(&self, orders: Orders, base: usize, lower: &A) -> Option<()> {
        let key = Self::key(base)?;
        let root = node(&self.root, orders, Self::ROOT_LEN, || Slot::new(ptr::null_mut()), lower)?;
        let slot = Self::slot(root, key);
        let leaf = node(slot, orders, Self::LEAF_LEN, || Entry::new(false), lower)?;
        Self::entry(leaf, key).store(true, Relaxed);
        let null = ptr::null_mut();
        if self.first_leaf.compare_exchange(null, leaf.as_ptr(), Relaxed, Relaxed).is_ok() {
            // INVARIANT: the leaf was stored above, and no thread stores another one.
            self.first_slot.store(key >> Self::LEAF_BITS, orders.publish);
        }
        Some(())
    }

    /// Removes the arena at `base`. Call this before the arena is unmapped, because anyone may map
    /// its address afterwards.
    ///
    /// # Safety
    ///
    /// No block of the arena may be in use, because it would be freed to another allocator.
    pub unsafe fn retract(&self, base: usize) {
        if let Some(entry) = Self::key(base).and_then(|key| self.find(Orders::SOUND, key)) {
            entry.store(false, Relaxed);
        }
    }

    /// Returns the number of leaves.
    pub fn leaves(&self) -> usize {
        self.slots().filter(|slot| !slot.load(Acquire).is_null()).count()
    }

    /// Returns the sizes of the root and of a leaf, in bytes.
    pub const fn node_sizes(&self) -> (usize, usize) {
        (Self::ROOT_LEN * size_of::<Slot>(), Self::LEAF_LEN * size_of::<Entry>())
    }

    /// Removes every arena and frees all nodes to `lower`. O(size of the root).
    ///
    /// # Safety
    ///
    /// - `lower` must be the allocator that was passed to [`publish`](Self::publish).
    /// - No block of a published arena may be in use.
    pub unsafe fn release<A: MemAlloc>(&mut self, lower: &A) {
        self.first_slot.store(NO_SLOT, Relaxed);
        self.first_leaf.store(ptr::null_mut(), Relaxed);
        for slot in self.slots() {
            // SAFETY: by the invariant of `root`. The map is borrowed exclusively, so nothing reads
            // the leaf.
            unsafe { free_node(lower, slot.load(Acquire), Self::LEAF_LEN) };
        }
        let root = self.root.swap(ptr::null_mut(), Acquire);
        // SAFETY: as above, for the root.
        unsafe { free_node(lower, root, Self::ROOT_LEN) };
    }

    /// Returns the bits of `address` above an arena's size, or `None` if it has more bits than the
    /// geometry's addresses.
    #[inline]
    fn key(address: usize) -> Option<usize> {
        let key = address >> Self::ARENA_BITS;
        if key >> Self::KEY_BITS == 0 { Some(key) } else { None }
    }

    /// Returns the entry for `key`, if its nodes exist.
    #[inline]
    fn find(&self, orders: Orders, key: usize) -> Option<&Entry> {
        let root = NonNull::new(self.root.load(orders.find))?;
        let leaf = NonNull::new(Self::slot(root, key).load(orders.find))?;
        Some(Self::entry(leaf, key))
    }

    #[inline]
    fn slot<'a>(root: NonNull<Slot>, key: usize) -> &'a Slot {
        // SAFETY: by the invariant of `root`. A key has KEY_BITS bits, so its upper part is an index.
        // Every caller borrows the map for longer than the slot.
        unsafe { root.add(key >> Self::LEAF_BITS).as_ref() }
    }

    #[inline]
    fn entry<'a>(leaf: NonNull<Entry>, key: usize) -> &'a Entry {
        // SAFETY: by the invariant of `root`, a leaf has LEAF_LEN entries. It lives as long as the
        // map, which every caller borrows for longer than the entry.
        unsafe { leaf.add(key % Self::LEAF_LEN).as_ref() }
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        let root = NonNull::new(self.root.load(Acquire));
        (0..Self::ROOT_LEN).map_while(move |at| Some(Self::slot(root?, at << Self::LEAF_BITS)))
    }
}

/// Defects D3: safe code retracted an arena in use, so its blocks were freed to another allocator.
/// Defects D4: safe code freed nodes to an allocator that they had not come from.
///
/// ```
/// # use obmalloc::{ArenaMap, Heap, KnownArenas, Pools16K};
/// # use raw_mem::{Malloc, MmapArenas, PageBlocks};
/// let heap = Heap::new(KnownArenas::new(MmapArenas::new(), Malloc), Malloc);
/// let map: &ArenaMap<Pools16K> = heap.source().map();
/// assert_eq!((map.contains(5 << 40), map.leaves()), (false, 0));
/// ```
///
/// ```compile_fail,E0133
/// # use obmalloc::{Heap, KnownArenas};
/// # use raw_mem::{Malloc, MmapArenas};
/// let heap = Heap::new(KnownArenas::new(MmapArenas::new(), Malloc), Malloc);
/// heap.source().map().retract(5 << 40);
/// ```
///
/// ```compile_fail,E0133
/// # use obmalloc::{ArenaMap, Pools16K};
/// # use raw_mem::PageBlocks;
/// let map = ArenaMap::<Pools16K>::new();
/// assert!(map.publish(5 << 40, &PageBlocks));
/// ```
///
/// ```compile_fail,E0133
/// # use obmalloc::{ArenaMap, Pools16K};
/// # use raw_mem::Malloc;
/// let mut map = ArenaMap::<Pools16K>::new();
/// map.release(&Malloc);
/// ```
#[cfg(doctest)]
struct SafeCodeCannotChangeAMap;

impl<G: Geometry> Default for ArenaMap<G> {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the node that `place` points to. If there is none, allocates one of `len` items whose
/// bytes are zero.
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
        // INVARIANT: the node is initialised, and stays.
        Ok(_) => Some(node),
        Err(other) => {
            // SAFETY: this node was not published, so nothing else refers to it.
            unsafe { free_node(lower, node.as_ptr(), len) };
            NonNull::new(other)
        }
    }
}

fn new_node<A: MemAlloc, T>(len: usize, zero: impl Fn() -> T, lower: &A) -> Option<NonNull<T>> {
    let node = lower.calloc(len, size_of::<T>())?.cast::<T>();
    // The bytes of an entry or slot are those of its value, and these are zero. In a model they are
    // objects of loom's.
    if sync::IS_MODEL {
        for at in 0..len {
            // SAFETY: the node has room for `len` items.
            unsafe { node.add(at).write(zero()) };
        }
    }
    Some(node)
}

/// Frees a node. Does nothing if `node` is null.
///
/// # Safety
///
/// `node` must be null, or come from [`new_node`] with `len`. Nothing may use it any more.
unsafe fn free_node<A: MemAlloc, T>(lower: &A, node: *mut T, len: usize) {
    if mem::needs_drop::<T>() && !node.is_null() {
        // SAFETY: the caller gives up a node of `len` items.
        unsafe { ptr::slice_from_raw_parts_mut(node, len).drop_in_place() };
    }
    // SAFETY: the caller gives up a block of `lower`, or null.
    unsafe { lower.free(NonNull::new(node.cast())) };
}

#[cfg(test)]
mod tests;
