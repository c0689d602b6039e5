//! A map that shows whether an address lies in an arena. CPython: `arena_map_root` (from 3.10).
//!
//! An arena source can reserve one contiguous range of addresses for its arenas. The map stores the
//! start and the length of this range, so that a single comparison shows whether an address lies in
//! the range. Arenas outside the range are recorded in a radix tree. The top bits of an address
//! select a leaf of the tree, and the next bits select an entry in the leaf. The entry is true if
//! the address lies in an arena.
//!
//! ```text
//! address   ├─ root, 14 bits ─┼─ leaf, 14 bits ─┼─ offset in an arena of 1 MiB, 20 bits ─┤
//! ```
//!
//! An arena is aligned to its size, so it has exactly one entry. In CPython, an arena can have two.
//!
//! Readers take no lock. They load the pointer to a leaf with `Acquire`, so they always see an
//! initialised leaf.
//!
//! A thread looks up a block only after it has allocated the block, or has received it from another
//! thread through a lock, a channel or the like. In the second case, passing the block synchronises
//! the two threads. An arena is added to the map before its first block is allocated, so a thread
//! that receives a block also sees the block's arena. `Relaxed` loads therefore suffice for the
//! entries and for the reserved range.
//!
//! A thread may read an outdated start or length of the reserved range. The outdated range contains
//! no address outside the current range, because the start is set only once and the length only
//! grows. (The exception is `ArenaMap::shrink`, whose comment explains why readers are still safe.)
//! Until a thread sees the start, it reads the placeholder `NO_RANGE` in its place. A range that
//! begins at `NO_RANGE` contains none of the program's memory, because programs have no memory in
//! the upper half of the address space.

use core::{marker::PhantomData, mem, ops::Range, ptr, ptr::NonNull};

use raw_mem::{ArenaSize, MapError, MemAlloc};
use sync::atomic::{
    AtomicBool, AtomicPtr, AtomicUsize,
    Ordering::{self, Acquire, Relaxed, Release},
};

use crate::geometry::{Geometry, shape::Shape};

/// An entry of a leaf: true if its address range is an arena.
type Entry = AtomicBool;
/// An item of the root: a pointer to a leaf, or null.
type Slot = AtomicPtr<Entry>;

/// The memory orderings of the map. Models replace them to show that weaker orderings are wrong.
#[derive(Clone, Copy, Debug)]
struct Orders {
    publish: Ordering,
    find: Ordering,
    /// Loads the node that another thread has published at the same place before us.
    lose: Ordering,
}

impl Orders {
    const SOUND: Self = Self { publish: Release, find: Acquire, lose: Acquire };
}

/// A map that shows whether an address lies in an arena.
///
/// Changing a map is unsafe, because heaps rely on it to decide which allocator must free a block.
#[derive(Debug)]
pub struct ArenaMap<G> {
    /// The start of the reserved range, or `NO_RANGE`.
    base: AtomicUsize,
    /// The length of the reserved range in bytes.
    length: AtomicUsize,
    /// # Invariant
    ///
    /// - `root` is null, or points to an array of `ROOT_LEN` pointers.
    /// - Each pointer in this array is null, or points to a leaf.
    /// - A leaf is an array of `LEAF_LEN` entries.
    /// - Only [`release`](Self::release), which takes `&mut self`, frees these arrays.
    root: AtomicPtr<Slot>,
    geometry: PhantomData<G>,
}

/// The start of the empty range. No address of a program is close to it.
///
/// This is the lowest address of the upper half of the address space, where programs have no
/// memory.
const NO_RANGE: usize = 1 << (usize::BITS - 1);

impl<G: Geometry> ArenaMap<G> {
    const ARENA_BITS: u32 = G::SIZES.arena_size.ilog2();
    const KEY_BITS: u32 = G::SIZES.address_bits - Self::ARENA_BITS;
    const LEAF_BITS: u32 = Self::KEY_BITS.div_ceil(2);
    const LEAF_LEN: usize = 1 << Self::LEAF_BITS;
    const ROOT_LEN: usize = 1 << (Self::KEY_BITS - Self::LEAF_BITS);

    sync::const_unless_model! {
        /// Creates an empty map, which has no nodes yet.
        ///
        /// Contradictory sizes do not compile. Here, the map would have no entry for any address:
        ///
        /// ```compile_fail,E0080
        /// # use obmalloc::{ArenaMap, Geometry, Sizes};
        /// #[derive(Clone, Copy, Debug, Default)]
        /// struct NoBits;
        /// impl Geometry for NoBits {
        ///     const NAME: &'static str = "no bits";
        ///     const SIZES: Sizes = Sizes { arena_size: 1, address_bits: 0, ..Sizes::CPYTHON };
        /// }
        /// let map = ArenaMap::<NoBits>::new();
        /// ```
        pub fn new() -> Self {
            // This constant fails to compile if the sizes of the geometry contradict each other.
            let _ = const { Shape::<G>::ARENA };
            Self {
                base: AtomicUsize::new(NO_RANGE),
                length: AtomicUsize::new(0),
                root: AtomicPtr::new(ptr::null_mut()),
                geometry: PhantomData,
            }
        }
    }

    /// Returns true if `address` lies in an arena or in the reserved range.
    #[inline]
    pub fn contains(&self, address: usize) -> bool {
        self.contains_with(Orders::SOUND, address)
    }

    #[inline]
    fn contains_with(&self, orders: Orders, address: usize) -> bool {
        self.is_reserved(address) || self.is_published(orders, address)
    }

    #[inline]
    fn is_reserved(&self, address: usize) -> bool {
        address.wrapping_sub(self.base.load(Relaxed)) < self.length.load(Relaxed)
    }

    #[inline]
    fn is_published(&self, orders: Orders, address: usize) -> bool {
        let entry = Self::key(address).and_then(|key| self.find(orders, key));
        entry.is_some_and(|entry| entry.load(Relaxed))
    }

    /// Records that all memory in `range` belongs to the source of the arenas.
    ///
    /// After this call, [`contains`](Self::contains) returns true for every address in `range`, so
    /// arenas in `range` need no entries in the map's tree. If `range` is empty, the call has no
    /// effect.
    ///
    /// If a range has grown, the caller must record the new range before it allocates any memory in
    /// the added part.
    ///
    /// # Safety
    ///
    /// - All non-empty ranges that are passed to this function must have the same start.
    /// - No range may be shorter than an earlier one, unless [`shrink`](Self::shrink) was called in
    ///   between.
    /// - Calls must not run at the same time.
    /// - Until the map is released, only the source of these arenas may own memory in the range.
    /// - Code that finds the owner of a block through this map must free the blocks in the range to
    ///   heaps of that source.
    #[inline]
    pub unsafe fn reserve(&self, range: Range<usize>) {
        let length = range.len();
        if length > self.length.load(Relaxed) {
            self.base.store(range.start, Relaxed);
            self.length.store(length, Relaxed);
        }
    }

    /// Shortens the reserved range of this map to `range`, which must have the same start.
    ///
    /// The call has no effect if no range is reserved, or if `range` is longer than the reserved
    /// range.
    ///
    /// After `shrink` has stored the new length, other threads can still read the old length for a
    /// short time. This is harmless, because no valid pointer points into the part that was cut off
    /// until new memory is mapped there. The caller unmaps this part only after the call of
    /// `shrink`, and the kernel gives the addresses to a new mapping only after it has completed
    /// the unmapping. A thread that maps memory there therefore sees the new length.
    ///
    /// # Safety
    ///
    /// - If a range is [reserved](Self::reserve), `range` must begin at the same address as that
    ///   range.
    /// - Nothing may use the part of the reserved range that lies after the end of `range`.
    /// - No other call to [`reserve`](Self::reserve) or `shrink` may run at the same time.
    pub unsafe fn shrink(&self, range: Range<usize>) {
        // The source may have a longer range than this map, if it was used without the map before.
        self.length.store(range.len().min(self.length.load(Relaxed)), Relaxed);
    }

    /// Adds the arena at `base` to the map.
    ///
    /// Returns false if `lower` cannot allocate a node, or if the address has too many bits.
    ///
    /// If `base` lies in the [reserved](Self::reserve) range, it needs no entry, so the call has no
    /// effect.
    ///
    /// A large mapping holds a single large block. If the mapping lies outside the reserved range,
    /// it needs an entry for its start. If the block's header does not lie at the start, a second
    /// call must add the address of the header.
    ///
    /// # Safety
    ///
    /// - `lower` must be the same allocator in every call of `publish` for this map, because a call
    ///   of [`release`](Self::release) frees the nodes of all these calls to one allocator.
    /// - `base` must be the start of an arena or of a large mapping, or a multiple of the arena size
    ///   after which a whole arena's size belongs to a large mapping.
    /// - The arena or mapping must stay mapped until [`retract`](Self::retract) removes it from
    ///   this map.
    /// - Some allocators look up the address of a block in this map. If the map contains the
    ///   address, they free the block themselves. Otherwise, they pass the block to another
    ///   allocator. All allocators that use this map in this way must be able to free the blocks in
    ///   the arena or mapping at `base`.
    #[must_use]
    pub unsafe fn publish<A: MemAlloc>(&self, base: usize, lower: &A) -> bool {
        self.publish_with(Orders::SOUND, base, lower).is_some()
    }

    /// Adds a new arena to the map (see [`publish`](Self::publish)) and returns the arena. If this
    /// fails, passes the arena to `unmap`.
    ///
    /// # Errors
    ///
    /// Returns [`MapError::Exhausted`] if `publish` fails or `size` is not [`Shape::ARENA`].
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
        // SAFETY: the contract of `publish` holds for this arena (contract of `publish_or_unmap`).
        if size == Shape::<G>::ARENA && unsafe { self.publish(arena.addr().get(), lower) } {
            return Ok(arena);
        }
        unmap(arena);
        Err(MapError::Exhausted { size })
    }

    fn publish_with<A: MemAlloc>(&self, orders: Orders, base: usize, lower: &A) -> Option<()> {
        if self.is_reserved(base) {
            return Some(());
        }
        let key = Self::key(base)?;
        let root = node(&self.root, orders, Self::ROOT_LEN, || Slot::new(ptr::null_mut()), lower)?;
        let slot = Self::slot(root, key);
        let leaf = node(slot, orders, Self::LEAF_LEN, || Entry::new(false), lower)?;
        Self::entry(leaf, key).store(true, Relaxed);
        Some(())
    }

    /// Removes the arena at `base`. This must happen before the arena is unmapped.
    ///
    /// # Safety
    ///
    /// No block of the arena may be in use, because such a block would later be freed to another
    /// allocator.
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
    /// - No published arena may have a block in use.
    pub unsafe fn release<A: MemAlloc>(&mut self, lower: &A) {
        // Without this, a later range could be read with the old start (see the module).
        self.base.store(NO_RANGE, Relaxed);
        self.length.store(0, Relaxed);
        for slot in self.slots() {
            // SAFETY: an unused leaf of this length or null (invariant of `root`, `&mut self`).
            unsafe { free_node(lower, slot.load(Acquire), Self::LEAF_LEN) };
        }
        let root = self.root.swap(ptr::null_mut(), Acquire);
        // SAFETY: an unused root of ROOT_LEN items or null (invariant of `root`, `&mut self`).
        unsafe { free_node(lower, root, Self::ROOT_LEN) };
    }

    /// Returns the index of the entry for `address`, or `None` if the address has too many bits.
    #[inline]
    fn key(address: usize) -> Option<usize> {
        let key = address >> Self::ARENA_BITS;
        if key >> Self::KEY_BITS == 0 { Some(key) } else { None }
    }

    #[inline]
    fn find(&self, orders: Orders, key: usize) -> Option<&Entry> {
        let root = NonNull::new(self.root.load(orders.find))?;
        let leaf = NonNull::new(Self::slot(root, key).load(orders.find))?;
        Some(Self::entry(leaf, key))
    }

    #[inline]
    fn slot<'a>(root: NonNull<Slot>, key: usize) -> &'a Slot {
        // SAFETY: the index is below ROOT_LEN, and callers borrow the map (invariant of `root`).
        unsafe { root.add(key >> Self::LEAF_BITS).as_ref() }
    }

    #[inline]
    fn entry<'a>(leaf: NonNull<Entry>, key: usize) -> &'a Entry {
        // SAFETY: the index is below LEAF_LEN, and callers borrow the map (invariant of `root`).
        unsafe { leaf.add(key % Self::LEAF_LEN).as_ref() }
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        let root = NonNull::new(self.root.load(Acquire));
        (0..Self::ROOT_LEN).map_while(move |at| Some(Self::slot(root?, at << Self::LEAF_BITS)))
    }
}

/// Safe code can read a map but cannot change it (regression test for defects D3 and D4).
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

/// Returns the node that `place` points to. If `place` is null, first publishes a zeroed node of
/// `len` items.
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
        // INVARIANT: the new node is initialised and lives until the map is released.
        Ok(_) => Some(node),
        Err(other) => {
            // SAFETY: the node of another thread was published, so nothing refers to ours.
            unsafe { free_node(lower, node.as_ptr(), len) };
            NonNull::new(other)
        }
    }
}

fn new_node<A: MemAlloc, T>(len: usize, zero: impl Fn() -> T, lower: &A) -> Option<NonNull<T>> {
    let node = lower.calloc(len, size_of::<T>())?.cast::<T>();
    // Zero bytes initialise a `bool` and a pointer, but not the loom objects of a model.
    if sync::IS_MODEL {
        for at in 0..len {
            // SAFETY: the node was allocated above with room for `len` items.
            unsafe { node.add(at).write(zero()) };
        }
    }
    Some(node)
}

/// Frees a node of `len` items, if there is one.
///
/// # Safety
///
/// `node` must be null, or come from [`new_node`] with this `len` and `lower` and be unused.
unsafe fn free_node<A: MemAlloc, T>(lower: &A, node: *mut T, len: usize) {
    if mem::needs_drop::<T>() && !node.is_null() {
        // SAFETY: the node has `len` initialised, unused items (contract of `free_node`).
        unsafe { ptr::slice_from_raw_parts_mut(node, len).drop_in_place() };
    }
    // SAFETY: `node` is null or an unused block of `lower` (contract of `free_node`).
    unsafe { lower.free(NonNull::new(node.cast())) };
}

#[cfg(test)]
mod tests;
