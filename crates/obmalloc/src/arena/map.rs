//! A map that tells which addresses lie in an arena. It is a radix tree, whose keys are the address
//! bits above the offset inside an arena.
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
//! Each entry of a leaf stands for a slot, which is a range of addresses that is as long as an
//! arena and is aligned to its length. Arenas are aligned to their size, so a slot is either a
//! whole arena or contains no part of an arena. One entry for each slot therefore suffices to
//! classify every address. A look-up reads only the tree, never the memory at the address. CPython:
//! `arena_map_root`, `address_in_range` (from 3.10). In CPython arenas are not aligned to their
//! size, so an arena may span two slots.
//!
//! Most programs need only one leaf, because the system places mappings close to each other. The
//! map stores a pointer to its first leaf, so a look-up in this leaf need not go through the root.
//! Only the load of the entry then depends on the address that is looked up. A look-up through the
//! root needs three loads that depend on each other.
//!
//! Readers take no lock. A new leaf is published with `Release` and loaded with `Acquire`, so a
//! reader that finds the leaf also sees its initial zeros (model
//! `a_leaf_is_seen_whole_or_not_at_all`). Entries are read with `Relaxed`. This is sufficient
//! because a thread that looks up a live block received the block from a thread that had already
//! observed the entry for the block's arena. Nodes are not freed as long as the map exists, so a
//! reader never follows a dangling pointer.

use core::{marker::PhantomData, mem, ptr, ptr::NonNull};

use raw_mem::{ArenaSize, MapError, MemAlloc};
use sync::atomic::{
    AtomicBool, AtomicPtr, AtomicUsize,
    Ordering::{self, Acquire, Relaxed, Release},
};

use crate::geometry::{Geometry, shape::Shape};

/// An entry of a leaf: true if its slot is an arena.
type Entry = AtomicBool;
/// An item of the root: a pointer to a leaf, or null.
type Slot = AtomicPtr<Entry>;

/// The memory orderings of the map's operations. The operations receive them as a parameter, so
/// that models can show that weaker orderings would be wrong.
#[derive(Clone, Copy, Debug)]
struct Orders {
    /// The ordering that publishes a new node.
    publish: Ordering,
    /// The ordering that loads the pointer to a node.
    find: Ordering,
    /// The ordering with which a thread loads the node of another thread, if both threads created
    /// the same node and the other thread published it first.
    lose: Ordering,
}

impl Orders {
    const SOUND: Self = Self { publish: Release, find: Acquire, lose: Acquire };
}

/// A map of the address space that stores which of its arena-sized slots are arenas.
///
/// The map does not store the allocator of its nodes, so operations that allocate or free nodes
/// take the allocator as an argument. Reading a map is safe. Changing a map is unsafe: code that
/// frees a block looks up the block in the map to decide whether the block belongs to a heap, so a
/// wrong entry would send the block to the wrong allocator.
#[derive(Debug)]
pub struct ArenaMap<G> {
    /// The index of the root's item that points to `first_leaf`, or `NO_SLOT` if there is no leaf
    /// yet.
    ///
    /// # Invariant
    ///
    /// If `first_slot` is not `NO_SLOT`, then `first_leaf` is not null and no longer changes.
    first_slot: AtomicUsize,
    /// The leaf that was created first, or null.
    first_leaf: AtomicPtr<Entry>,
    /// # Invariant
    ///
    /// `root` is null or points to `ROOT_LEN` items. Each item is null or points to a leaf of
    /// `LEAF_LEN` entries. All of these nodes live as long as the map.
    root: AtomicPtr<Slot>,
    geometry: PhantomData<G>,
}

/// An index that is larger than the index of every item of a root.
const NO_SLOT: usize = usize::MAX;

impl<G: Geometry> ArenaMap<G> {
    const ARENA_BITS: u32 = G::SIZES.arena_size.ilog2();
    const KEY_BITS: u32 = G::SIZES.address_bits - Self::ARENA_BITS;
    const LEAF_BITS: u32 = Self::KEY_BITS.div_ceil(2);
    const LEAF_LEN: usize = 1 << Self::LEAF_BITS;
    const ROOT_LEN: usize = 1 << (Self::KEY_BITS - Self::LEAF_BITS);

    sync::const_unless_model! {
        /// Creates an empty map. Nodes are allocated when the first arena is published.
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
        // SAFETY: `first_slot` is not `NO_SLOT`, so `first_leaf` is not null (invariant of
        // `first_slot`). `first_leaf` was stored before `first_slot` was published with `Release`.
        // The load of `first_slot` with `Acquire` therefore makes that store visible here.
        let leaf = unsafe { NonNull::new_unchecked(leaf) };
        Self::entry(leaf, key).load(Relaxed)
    }

    /// Returns true if `address` lies in an arena whose entry is not in the first leaf.
    #[inline]
    fn contains_elsewhere(&self, orders: Orders, address: usize) -> bool {
        let entry = Self::key(address).and_then(|key| self.find(orders, key));
        entry.is_some_and(|entry| entry.load(Relaxed))
    }

    /// Adds the arena at `base`. Returns false if `lower` cannot allocate a node, or if `base` has
    /// more bits than an address of the geometry may have. In these cases the arena is not added.
    ///
    /// # Safety
    ///
    /// - Every call on a given map must pass the same allocator, because a later call may free a
    ///   node that an earlier call has allocated.
    /// - `base` must be the first byte of an arena. The arena must stay mapped until it is
    ///   [retracted](Self::retract).
    /// - Code that uses this map to decide which allocator a block belongs to must free each block
    ///   of this arena to the heap that owns the arena.
    #[must_use]
    pub unsafe fn publish<A: MemAlloc>(&self, base: usize, lower: &A) -> bool {
        self.publish_with(Orders::SOUND, base, lower).is_some()
    }

    /// [Publishes](Self::publish) an arena of `size` bytes that was mapped just now, and returns
    /// the arena. If the arena cannot be published, passes it to `unmap`.
    ///
    /// # Errors
    ///
    /// Returns [`MapError::Exhausted`] if `lower` cannot allocate a node, or if `size` is not the
    /// size of the geometry's arenas. An entry of the map covers a range of that size. If a smaller
    /// arena were published, [`contains`](Self::contains) would also return true for addresses
    /// beside the arena.
    ///
    /// # Safety
    ///
    /// The contract of [`publish`](Self::publish) must hold for the address of `arena`.
    pub unsafe fn publish_or_unmap<A: MemAlloc>(
        &self,
        arena: NonNull<u8>,
        size: ArenaSize,
        lower: &A,
        unmap: impl FnOnce(NonNull<u8>),
    ) -> Result<NonNull<u8>, MapError> {
        // SAFETY: the caller guarantees the contract of `publish` for this arena (contract of this
        // function).
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
            // INVARIANT: `first_leaf` was set above. Its compare-and-swap succeeds only once, so no
            // thread changes `first_leaf` afterwards.
            self.first_slot.store(key >> Self::LEAF_BITS, orders.publish);
        }
        Some(())
    }

    /// Removes the arena at `base` from the map. The caller must remove an arena before it unmaps
    /// the arena. As soon as the arena is unmapped, another part of the program may map the same
    /// addresses, and the map must not claim these addresses.
    ///
    /// # Safety
    ///
    /// No block of the arena may be in use. The map no longer contains the arena, so code that
    /// looks up such a block would free it to another allocator.
    pub unsafe fn retract(&self, base: usize) {
        if let Some(entry) = Self::key(base).and_then(|key| self.find(Orders::SOUND, key)) {
            entry.store(false, Relaxed);
        }
    }

    /// Returns the number of leaves that the map has allocated.
    pub fn leaves(&self) -> usize {
        self.slots().filter(|slot| !slot.load(Acquire).is_null()).count()
    }

    /// Returns the size of the root and the size of a leaf, in bytes.
    pub const fn node_sizes(&self) -> (usize, usize) {
        (Self::ROOT_LEN * size_of::<Slot>(), Self::LEAF_LEN * size_of::<Entry>())
    }

    /// Removes every arena and frees all nodes to `lower`. O(length of the root).
    ///
    /// # Safety
    ///
    /// - `lower` must be the allocator that was passed to [`publish`](Self::publish).
    /// - No block of a published arena may be in use.
    pub unsafe fn release<A: MemAlloc>(&mut self, lower: &A) {
        self.first_slot.store(NO_SLOT, Relaxed);
        self.first_leaf.store(ptr::null_mut(), Relaxed);
        for slot in self.slots() {
            // SAFETY: the item is null or points to a leaf of this length (invariant of `root`).
            // The map is borrowed exclusively, so no other thread reads the leaf.
            unsafe { free_node(lower, slot.load(Acquire), Self::LEAF_LEN) };
        }
        let root = self.root.swap(ptr::null_mut(), Acquire);
        // SAFETY: the root is null or has ROOT_LEN items (invariant of `root`), and nothing reads
        // the root any more.
        unsafe { free_node(lower, root, Self::ROOT_LEN) };
    }

    /// Returns the bits of `address` above the offset inside an arena, or `None` if `address` has
    /// more bits than an address of the geometry may have.
    #[inline]
    fn key(address: usize) -> Option<usize> {
        let key = address >> Self::ARENA_BITS;
        if key >> Self::KEY_BITS == 0 { Some(key) } else { None }
    }

    /// Returns the entry for `key`, or `None` if the leaf that would contain the entry does not
    /// exist.
    #[inline]
    fn find(&self, orders: Orders, key: usize) -> Option<&Entry> {
        let root = NonNull::new(self.root.load(orders.find))?;
        let leaf = NonNull::new(Self::slot(root, key).load(orders.find))?;
        Some(Self::entry(leaf, key))
    }

    #[inline]
    fn slot<'a>(root: NonNull<Slot>, key: usize) -> &'a Slot {
        // SAFETY: the root has ROOT_LEN items (invariant of `root`). A key has KEY_BITS bits, so
        // its upper part is an index of the root. Every caller borrows the map for at least as long
        // as it uses the returned reference.
        unsafe { root.add(key >> Self::LEAF_BITS).as_ref() }
    }

    #[inline]
    fn entry<'a>(leaf: NonNull<Entry>, key: usize) -> &'a Entry {
        // SAFETY: a leaf has LEAF_LEN entries and lives as long as the map (invariant of `root`).
        // Every caller borrows the map for at least as long as it uses the returned reference.
        unsafe { leaf.add(key % Self::LEAF_LEN).as_ref() }
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        let root = NonNull::new(self.root.load(Acquire));
        (0..Self::ROOT_LEN).map_while(move |at| Some(Self::slot(root?, at << Self::LEAF_BITS)))
    }
}

/// Regression test: safe code once could retract an arena whose blocks were in use, so that these
/// blocks were freed to another allocator (defect D3). It also could free the nodes of a map to an
/// allocator that had not allocated them (defect D4). The first example below reads a map in safe
/// code. The others show that the operations that change a map do not compile without `unsafe`.
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

/// Returns the node that `place` points to. If `place` is null, allocates a node of `len` items
/// whose bytes are zero, and stores a pointer to the node in `place`. Returns `None` if the
/// allocation fails.
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
        // INVARIANT: the new node is initialised, and `place` points to it until the map is
        // released.
        Ok(_) => Some(node),
        Err(other) => {
            // SAFETY: another thread has published its node first. Our new node was therefore not
            // published, and nothing else refers to it.
            unsafe { free_node(lower, node.as_ptr(), len) };
            NonNull::new(other)
        }
    }
}

fn new_node<A: MemAlloc, T>(len: usize, zero: impl Fn() -> T, lower: &A) -> Option<NonNull<T>> {
    let node = lower.calloc(len, size_of::<T>())?.cast::<T>();
    // In a normal build, an item whose bytes are zero is a valid `false` or null pointer, so the
    // zeroed node is already initialised. In a model, however, each item is an object of loom,
    // which zero bytes do not initialise.
    if sync::IS_MODEL {
        for at in 0..len {
            // SAFETY: the node was allocated above with room for `len` items.
            unsafe { node.add(at).write(zero()) };
        }
    }
    Some(node)
}

/// Frees a node of `len` items. Does nothing if `node` is null.
///
/// # Safety
///
/// `node` must be null, or must have come from [`new_node`] with the same `len` and `lower`.
/// Nothing may use the node any more.
unsafe fn free_node<A: MemAlloc, T>(lower: &A, node: *mut T, len: usize) {
    if mem::needs_drop::<T>() && !node.is_null() {
        // SAFETY: the node has `len` initialised items, and nothing uses them any more (contract of
        // this function).
        unsafe { ptr::slice_from_raw_parts_mut(node, len).drop_in_place() };
    }
    // SAFETY: `node` is null or a live block of `lower` that nothing uses any more (contract of
    // this function).
    unsafe { lower.free(NonNull::new(node.cast())) };
}

#[cfg(test)]
mod tests;
