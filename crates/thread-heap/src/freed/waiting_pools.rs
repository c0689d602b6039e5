//! A table of the blocks that wait in an inbox. It tells a takeover which pages to purge.
//!
//! ```text
//!   pool    ├─ page ──────┼─ page ──────┼─ page ──────┼─ page ──────┤
//!           │ waits waits │ waits waits │ used  waits │ waits waits │
//!           ├─────────────┼─────────────┼─────────────┼─────────────┤
//!   entry      purged        purged     ▲ 1040 bytes     purged
//!                                       └ listed: the blocks on pages that stay
//! ```
//!
//! 1. A page is purged only if waiting blocks cover all of its bytes. Unused bytes at either end of
//!    a pool count as part of the adjacent block.
//! 2. A block that touches a purged page is on no list, because the purge may destroy its link. The
//!    mark [`PURGED`] means that all blocks on the page wait.
//! 3. Every other waiting block is on the list of its pool, and its first word is the link.

use std::{marker::PhantomData, ops::Range, ptr, ptr::NonNull, slice};

use obmalloc::{BlockStart, Geometry, Shape, SizeClass};
use raw_mem::{MemAlloc, mark_accessible};

use super::batch::Batch;

/// The page size that the table assumes, in bytes.
///
/// If the system's pages are larger, a purge affects only the system pages that lie entirely in its
/// range.
pub(crate) const PAGE: usize = 4096;

/// The largest number of pages in a pool of linked blocks that a table can describe.
pub(crate) const SMALL: usize = 4;

/// The largest number of pages in a pool of larger blocks that a table can describe.
///
/// This is enough for every pool of several blocks in our own geometry.
pub(crate) const MEDIUM: usize = 32;

/// The count of a page that waiting blocks cover completely.
const FULL: u16 = PAGE as u16;

/// The mark that replaces the count of a purged page.
const PURGED: u16 = u16::MAX;

const FEWEST_ENTRIES: usize = 64;

#[derive(Debug)]
#[repr(C)]
struct Head {
    node: Batch,
    capacity: usize,
    used: usize,
}

/// The waiting blocks of one pool. An entry of zero bytes is vacant.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct WaitingPool<const PAGES: usize> {
    start: *mut u8,
    /// The first listed block, or null. Each listed block begins with the address of the next one.
    listed: *mut u8,
    /// The number of waiting bytes on each page, or [`PURGED`].
    pages: [u16; PAGES],
    size: u32,
    /// The size of the pool, in bytes.
    bytes: u32,
    /// The offset of the first block.
    first: u16,
}

impl<const PAGES: usize> WaitingPool<PAGES> {
    /// Returns the bytes of the block at `offset`, extended by any adjacent unused bytes at either
    /// end of the pool.
    fn span<G: Geometry>(&self, offset: usize) -> Range<usize> {
        let end = offset + self.size as usize;
        let is_first = offset == usize::from(self.first);
        let is_last = end + self.size as usize > self.bytes as usize;
        let begin = if is_first { self.before_blocks::<G>() } else { offset };
        begin..if is_last { self.bytes as usize } else { end }
    }

    /// Returns the offset after the headers in the pool.
    fn before_blocks<G: Geometry>(&self) -> usize {
        BlockStart::Aligned.offset::<G>(self.start.addr().is_multiple_of(G::SIZES.arena_size))
    }

    /// Returns true if the block at `offset` touches a page whose value is `count`.
    fn touches<G: Geometry>(&self, offset: usize, count: u16) -> bool {
        pages(&self.span::<G>(offset)).any(|page| self.pages[page] == count)
    }

    fn offsets(&self) -> impl Iterator<Item = usize> + use<PAGES> {
        let size = self.size as usize;
        (self.first.into()..=self.bytes as usize - size).step_by(size)
    }

    fn is_full(&self, page: usize) -> bool {
        self.pages[page] == FULL
    }

    /// Returns the number of pages in the pool.
    fn page_count(&self) -> usize {
        self.bytes as usize / PAGE
    }

    fn unlist_full_pages<G: Geometry>(&mut self) {
        let mut listed = ptr::null_mut();
        for block in Listed(self.listed) {
            if !self.touches::<G>(block.addr().get() - self.start.addr(), FULL) {
                // SAFETY: the table owns each listed block, and every block has room for a word.
                unsafe { block.cast::<*mut u8>().write(listed) };
                listed = block.as_ptr();
            }
        }
        self.listed = listed;
    }
}

fn pages(span: &Range<usize>) -> impl Iterator<Item = usize> + use<> {
    span.start / PAGE..span.end.div_ceil(PAGE)
}

/// A table that owns its memory and its waiting blocks. Dropping it leaks both.
#[derive(Debug)]
pub(crate) struct WaitingPools<G, const PAGES: usize = SMALL> {
    /// # Invariant
    ///
    /// - `head` is a block of the metadata allocator, and the table owns this block exclusively.
    /// - The block contains a `Head`, followed by `capacity` initialised entries.
    /// - `capacity` is a power of two.
    /// - At least a quarter of the entries are vacant.
    /// - Each entry in use describes a pool of a thread heap with the geometry `G`.
    /// - Each entry in use obeys the rules of this module, and owns its waiting blocks exclusively.
    head: NonNull<Head>,
    geometry: PhantomData<G>,
}

impl<G: Geometry, const PAGES: usize> WaitingPools<G, PAGES> {
    /// Creates an empty table. Returns `None` if there is no memory, or if a unit does not fit an
    /// entry.
    pub(crate) fn new<A: MemAlloc>(lower: &A) -> Option<Self> {
        let supported =
            G::SIZES.pool_size.is_multiple_of(PAGE) && G::SIZES.pool_size / PAGE <= PAGES;
        if supported { Self::with_capacity(FEWEST_ENTRIES, lower) } else { None }
    }

    fn with_capacity<A: MemAlloc>(capacity: usize, lower: &A) -> Option<Self> {
        let bytes =
            capacity.checked_mul(size_of::<WaitingPool<PAGES>>())?.checked_add(size_of::<Head>())?;
        let head = lower.calloc(1, bytes)?.cast::<Head>();
        // SAFETY: we own the new block. It is aligned to words, and has room for the head.
        unsafe { head.write(Head { node: Batch::table_head(PAGES), capacity, used: 0 }) };
        // INVARIANT: the head was written just now, and zero bytes are vacant entries.
        Some(Self { head, geometry: PhantomData })
    }

    /// Converts a node back into its table.
    ///
    /// # Safety
    ///
    /// - `node` must have been returned by [`into_node`](Self::into_node).
    /// - The caller must own `node` exclusively and must not use it afterwards.
    pub(crate) unsafe fn from_node(node: NonNull<Batch>) -> Self {
        // INVARIANT: `node` was a valid table (contract of `from_node`) and has not been changed
        // since.
        Self { head: node.cast(), geometry: PhantomData }
    }

    pub(crate) fn into_node(self) -> NonNull<Batch> {
        self.head.cast()
    }

    fn head(&mut self) -> &mut Head {
        // SAFETY: the head is initialised and ours (invariant), and the table is borrowed mutably.
        unsafe { self.head.as_mut() }
    }

    fn entries(&mut self) -> &mut [WaitingPool<PAGES>] {
        let capacity = self.head().capacity;
        // SAFETY: the entries follow the head (invariant).
        let first = unsafe { self.head.add(1).cast::<WaitingPool<PAGES>>() };
        // SAFETY: `capacity` entries are initialised (invariant), and `self` is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(first.as_ptr(), capacity) }
    }

    /// Makes room for `pools` more pools. If there is no memory, returns false and changes nothing.
    pub(crate) fn reserve<A: MemAlloc>(&mut self, pools: usize, lower: &A) -> bool {
        let &mut Head { capacity, used, .. } = self.head();
        let mut needed = capacity;
        while 4 * (used + pools) > 3 * needed {
            needed *= 2;
        }
        if needed == capacity {
            return true;
        }
        let Some(mut larger) = Self::with_capacity(needed, lower) else { return false };
        for pool in self.entries().iter().filter(|pool| !pool.start.is_null()) {
            *larger.entry(pool.start) = *pool;
        }
        larger.head().used = used;
        let old = std::mem::replace(self, larger);
        // SAFETY: the old head is a block of `lower` (invariant), and is no longer used.
        unsafe { lower.free(Some(old.head.cast())) };
        true
    }

    /// Returns the entry of the pool at `start`, or a vacant entry that can be used for it.
    fn entry(&mut self, start: *mut u8) -> &mut WaitingPool<PAGES> {
        let entries = self.entries();
        let number = (start.addr() / G::SIZES.pool_size) as u64;
        // The multiplier is 2^64 divided by the golden ratio. It spreads adjacent pools over the
        // table.
        let bits = entries.len().trailing_zeros();
        let mut place = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as usize;
        // The loop ends because some entries are vacant (invariant).
        while !entries[place].start.is_null() && entries[place].start != start {
            place = (place + 1) & (entries.len() - 1);
        }
        &mut entries[place]
    }

    /// Adds a waiting block. [`reserve`](Self::reserve) must have made room for its pool.
    ///
    /// # Safety
    ///
    /// - `block` must have been allocated by a heap with the geometry `G`.
    /// - The heap must still count `block` as in use. Otherwise, it could change the header of the
    ///   block's pool, from which this function reads the size class.
    /// - The caller must own `block` exclusively, and must not use it after this call.
    ///
    /// # Panics
    ///
    /// Panics if the pool of `block` has more than `PAGES` pages.
    pub(crate) unsafe fn add(&mut self, block: NonNull<u8>) {
        // SAFETY: `block` is a block in use of this geometry (contract of `add`).
        let class = unsafe { SizeClass::<G>::at(block) };
        debug_assert!(class.is_some(), "a block in use has a class");
        let size = class.map_or(G::SIZES.alignment, SizeClass::block_size) as u32;
        let bytes = class.map_or(G::SIZES.pool_size, SizeClass::pool_bytes) as u32;
        // SAFETY: as above.
        let first = unsafe { Shape::<G>::first_block_at(block) } as u16;
        // SAFETY: as above.
        let start = unsafe { Shape::<G>::pool_at(block) }.as_ptr();
        let pool = self.entry(start);
        let is_new = pool.start.is_null();
        if is_new {
            *pool = WaitingPool { start, size, bytes, first, ..*pool };
        }
        let span = pool.span::<G>(block.addr().get() - start.addr());
        for page in pages(&span) {
            let bytes = span.end.min((page + 1) * PAGE) - span.start.max(page * PAGE);
            pool.pages[page] += bytes as u16;
        }
        // SAFETY: we own the block (contract of `add`), and every block has room for a word.
        unsafe { block.cast::<*mut u8>().write(pool.listed) };
        // INVARIANT: the caller gave up the block, and its link leads to the rest of the list.
        pool.listed = block.as_ptr();
        self.head().used += usize::from(is_new);
    }

    /// Calls `give_back` with each range of full pages, and marks these pages as purged.
    ///
    /// Each range lies in one arena and consists of waiting blocks, which `give_back` may
    /// overwrite.
    pub(crate) fn purge(&mut self, mut give_back: impl FnMut(NonNull<u8>, usize)) {
        for pool in self.entries().iter_mut().filter(|pool| pool.pages.contains(&FULL)) {
            pool.unlist_full_pages::<G>();
        }
        for place in 0..self.entries().len() {
            let pool = self.entries()[place];
            for nth in (0..PAGES).filter(|nth| pool.is_full(*nth)) {
                let page = pool.start.wrapping_add(nth * PAGE);
                let continues = match nth.checked_sub(1) {
                    Some(before) => pool.is_full(before),
                    None => self.ends_full_before(page),
                };
                if !continues {
                    // SAFETY: the page lies in the pool, so its address is not null.
                    let first = unsafe { NonNull::new_unchecked(page) };
                    give_back(first, PAGE * self.full_pages_from(&pool, nth));
                }
            }
        }
        for page in self.entries().iter_mut().flat_map(|pool| &mut pool.pages) {
            if *page == FULL {
                *page = PURGED;
            }
        }
    }

    /// Returns true if a pool of one unit in the same arena ends just before `page` with a full
    /// page.
    fn ends_full_before(&mut self, page: *mut u8) -> bool {
        if page.addr().is_multiple_of(G::SIZES.arena_size) {
            return false;
        }
        // For a pool without an entry, `entry` returns a vacant entry, whose counts are zero.
        let before = self.entry(page.wrapping_sub(G::SIZES.pool_size));
        before.bytes as usize == G::SIZES.pool_size && before.is_full(before.page_count() - 1)
    }

    /// Returns the number of adjacent full pages, beginning with page `nth` of `pool`.
    ///
    /// If `pool` is one unit, they may continue in the next pool of the arena.
    fn full_pages_from(&mut self, pool: &WaitingPool<PAGES>, nth: usize) -> usize {
        let (mut pool, mut nth, mut full) = (*pool, nth, 0);
        loop {
            let here = (nth..pool.page_count()).take_while(|page| pool.is_full(*page)).count();
            full += here;
            let reaches_end = nth + here == pool.page_count();
            let next = pool.start.wrapping_add(G::SIZES.pool_size);
            let is_unit = pool.bytes as usize == G::SIZES.pool_size;
            if !reaches_end || !is_unit || next.addr().is_multiple_of(G::SIZES.arena_size) {
                return full;
            }
            // For a pool without an entry, `entry` returns a vacant entry, which has no pages.
            (pool, nth) = (*self.entry(next), 0);
        }
    }

    /// Calls `visit` once for every waiting block, and frees the table to `lower`.
    ///
    /// `lower` must have allocated the table. The contents of the blocks are unspecified.
    pub(crate) fn unload<A: MemAlloc>(mut self, lower: &A, mut visit: impl FnMut(NonNull<u8>)) {
        for place in 0..self.entries().len() {
            let pool = self.entries()[place];
            Listed(pool.listed).for_each(&mut visit);
            for page in (0..PAGES).filter(|page| pool.pages[*page] == PURGED) {
                mark_accessible(pool.start.addr() + page * PAGE, PAGE);
            }
            if !pool.pages.contains(&PURGED) {
                continue;
            }
            for offset in pool.offsets().filter(|offset| pool.touches::<G>(*offset, PURGED)) {
                // SAFETY: the block lies in its pool, which stays mapped until the last visit.
                visit(unsafe { NonNull::new_unchecked(pool.start.add(offset)) });
            }
        }
        // SAFETY: the head is a block of `lower` (invariant), and is no longer used.
        unsafe { lower.free(Some(self.head.cast())) };
    }
}

/// An iterator over a list of waiting blocks. The caller may overwrite each block that it gets.
struct Listed(
    /// # Invariant
    ///
    /// Null, or a listed block of a table that the user of this iterator owns.
    *mut u8,
);

impl Iterator for Listed {
    type Item = NonNull<u8>;

    fn next(&mut self) -> Option<NonNull<u8>> {
        let block = NonNull::new(self.0)?;
        // SAFETY: the first word of a listed block is a link (invariant).
        self.0 = unsafe { block.cast::<*mut u8>().read() };
        Some(block)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
