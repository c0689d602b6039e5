//! A table of the freed blocks that wait in the inbox of a heap. A thread that takes over the inbox
//! creates the table, in order to find the pages that it can purge.
//!
//! ```text
//!   pool    ├─ page ──────┼─ page ──────┼─ page ──────┼─ page ──────┤
//!           │ waits waits │ waits waits │ used  waits │ waits waits │
//!           ├─────────────┼─────────────┼─────────────┼─────────────┤
//!   entry      purged        purged     ▲ 1040 bytes     purged
//!                                       └ listed: the blocks on pages that stay
//! ```
//!
//! The owner of the heap treats every waiting block as in use, so it neither reuses these blocks
//! nor frees their pools. The thread that owns the table may therefore purge a page if each byte of
//! the page belongs to a waiting block. The bytes behind the last block of a pool can never belong
//! to another block, so we count them as part of the last block. Pool headers, and memory that was
//! never allocated as a block, do not belong to a waiting block. Pages that contain such memory are
//! therefore never purged.
//!
//! 1. A page is purged only if its count of waiting bytes equals the size of a page.
//! 2. Purging a page destroys the links in its blocks. A block that touches a purged page is
//!    therefore on no list. Instead, the mark of the page says that every block that touches the
//!    page waits.
//! 3. Every other waiting block is on the list of its pool. The first word of each block on a list
//!    links to the next block.
//!
//! The table is itself a node of the inbox. It has at least 64 entries of 32 bytes, and each entry
//! in use describes one pool. A batch has at most 32 blocks, which may all lie in different pools.
//! Before the blocks of a batch are added, the table therefore makes room for as many new pools as
//! the batch has blocks. If more than three quarters of the entries could then be in use, the
//! number of entries is doubled first. A table therefore takes at least 2 KiB, and at most 86 bytes
//! for each pool of 16 KiB plus another 3 KiB.

use std::{marker::PhantomData, ops::Range, ptr, ptr::NonNull, slice};

use obmalloc::{Geometry, Shape, SizeClass};
use raw_mem::MemAlloc;

use super::batch::Batch;

/// The size of the pages for which waiting bytes are counted. If the pages of the system are
/// larger, purging a range of full pages affects only the whole system pages inside the range.
pub(crate) const PAGE: usize = 4096;

/// The largest number of pages that a pool can have.
const MOST_PAGES: usize = 4;

/// The count of waiting bytes on a page if every byte of the page belongs to a waiting block.
const FULL: u16 = PAGE as u16;

/// The mark that replaces the count of waiting bytes on a page after the page was purged.
const PURGED: u16 = u16::MAX;

/// The number of entries in a new table.
const FEWEST_ENTRIES: usize = 64;

/// The head of a table. The entries of the table follow it in memory.
#[derive(Debug)]
#[repr(C)]
struct Head {
    node: Batch,
    capacity: usize,
    used: usize,
}

/// An entry of a table. If its bytes are all zero, the entry is vacant. Otherwise it describes the
/// waiting blocks of one pool.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct WaitingPool {
    /// The first byte of the pool, or null if the entry is vacant.
    start: *mut u8,
    /// The first block on the list of the pool's waiting blocks, or null. The first word of each
    /// block on the list is the address of the next block, or null.
    listed: *mut u8,
    /// For each page of the pool, the number of bytes that belong to waiting blocks, or [`PURGED`].
    pages: [u16; MOST_PAGES],
    /// The size of each block of the pool, in bytes.
    size: u32,
}

impl WaitingPool {
    /// Returns the range of bytes in the pool that belong to the block at `offset`. The range of
    /// the last block extends to the end of the pool.
    fn span<G: Geometry>(&self, offset: usize) -> Range<usize> {
        let end = offset + self.size as usize;
        let is_last = end + self.size as usize > G::SIZES.pool_size;
        offset..if is_last { G::SIZES.pool_size } else { end }
    }

    /// Returns true if the block at `offset` touches a page whose value in `pages` is `count`.
    fn touches<G: Geometry>(&self, offset: usize, count: u16) -> bool {
        pages(&self.span::<G>(offset)).any(|page| self.pages[page] == count)
    }

    /// Returns the offsets of all blocks that the pool can hold.
    fn offsets<G: Geometry>(&self) -> impl Iterator<Item = usize> + use<G> {
        let is_first = self.start.addr().is_multiple_of(G::SIZES.arena_size);
        let first = if is_first { Shape::<G>::BEFORE_FIRST_POOL } else { Shape::<G>::BEFORE_POOL };
        let size = self.size as usize;
        (first..=G::SIZES.pool_size - size).step_by(size)
    }

    /// Removes the blocks that touch a full page from the list of the pool.
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

/// Returns the indices of the pages that contain the bytes of `span`.
fn pages(span: &Range<usize>) -> impl Iterator<Item = usize> + use<> {
    span.start / PAGE..span.end.div_ceil(PAGE)
}

/// A table of waiting blocks. A value of this type owns the memory of the table and all blocks that
/// the table describes.
///
/// The type has no destructor. A table must be passed to [`into_node`](Self::into_node) or to
/// [`unload`](Self::unload), which take the ownership of its blocks.
#[derive(Debug)]
pub(crate) struct WaitingPools<G> {
    /// # Invariant
    ///
    /// - `head` is a block of the metadata allocator, and we exclusively own it. It holds an
    ///   initialised `Head`, followed by `capacity` initialised entries. The capacity is a power of
    ///   two, and at least a quarter of the entries are vacant.
    /// - Each entry in use describes a pool of a thread heap of the geometry `G`, and follows the
    ///   numbered rules of this module. We exclusively own the waiting blocks of this pool.
    head: NonNull<Head>,
    geometry: PhantomData<G>,
}

impl<G: Geometry> WaitingPools<G> {
    /// Creates an empty table with memory from `lower`. Returns `None` if the allocation fails, or
    /// if a pool of this geometry does not consist of whole pages or has more pages than an entry
    /// has counts for.
    pub(crate) fn new<A: MemAlloc>(lower: &A) -> Option<Self> {
        let supported =
            G::SIZES.pool_size.is_multiple_of(PAGE) && G::SIZES.pool_size / PAGE <= MOST_PAGES;
        if supported { Self::with_capacity(FEWEST_ENTRIES, lower) } else { None }
    }

    fn with_capacity<A: MemAlloc>(capacity: usize, lower: &A) -> Option<Self> {
        let bytes =
            capacity.checked_mul(size_of::<WaitingPool>())?.checked_add(size_of::<Head>())?;
        let head = lower.calloc(1, bytes)?.cast::<Head>();
        // SAFETY: we own the new block. It is aligned to words, and has room for the head.
        unsafe { head.write(Head { node: Batch::table_head(), capacity, used: 0 }) };
        // INVARIANT: the head was written just now, and zero bytes are vacant entries.
        Some(Self { head, geometry: PhantomData })
    }

    /// Returns the table whose node is `node`.
    ///
    /// # Safety
    ///
    /// - `node` must have been returned by [`into_node`](Self::into_node).
    /// - The caller must exclusively own it, and gives up that ownership.
    pub(crate) unsafe fn from_node(node: NonNull<Batch>) -> Self {
        // INVARIANT: `into_node` consumed a table that met the invariant, and the node has not
        // changed since.
        Self { head: node.cast(), geometry: PhantomData }
    }

    /// Converts the table into a node, which can be pushed to an inbox.
    pub(crate) fn into_node(self) -> NonNull<Batch> {
        self.head.cast()
    }

    fn head(&mut self) -> &mut Head {
        // SAFETY: the head is initialised and ours (invariant), and the table is borrowed mutably.
        unsafe { self.head.as_mut() }
    }

    fn entries(&mut self) -> &mut [WaitingPool] {
        let capacity = self.head().capacity;
        // SAFETY: the entries follow the head (invariant).
        let first = unsafe { self.head.add(1).cast::<WaitingPool>() };
        // SAFETY: `capacity` entries are initialised (invariant), and the table is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(first.as_ptr(), capacity) }
    }

    /// Makes room for up to `pools` pools that are not in the table yet. If this needs a larger
    /// table and `lower` cannot allocate it, returns false and leaves the table unchanged.
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
        // SAFETY: the old head is a block of `lower` (invariant), and is not used any more.
        unsafe { lower.free(Some(old.head.cast())) };
        true
    }

    /// Returns the entry of the pool at `start`. If the table has no entry for this pool, returns a
    /// vacant entry, which the caller can use for the pool.
    fn entry(&mut self, start: *mut u8) -> &mut WaitingPool {
        let entries = self.entries();
        let number = (start.addr() / G::SIZES.pool_size) as u64;
        // We multiply the number of the pool by 2^64 divided by the golden ratio, modulo 2^64. For
        // adjacent numbers, the highest bits of these products are spread evenly. We use these bits
        // as the index.
        let bits = entries.len().trailing_zeros();
        let mut place = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as usize;
        // The loop ends, because some entries are vacant (invariant).
        while !entries[place].start.is_null() && entries[place].start != start {
            place = (place + 1) & (entries.len() - 1);
        }
        &mut entries[place]
    }

    /// Adds a waiting block. If the table has no entry for the block's pool yet,
    /// [`reserve`](Self::reserve) must have made room for an entry.
    ///
    /// # Safety
    ///
    /// - `block` must be a block in use of a thread heap of the geometry `G`.
    /// - The caller must exclusively own it, and gives up that ownership.
    pub(crate) unsafe fn add(&mut self, block: NonNull<u8>) {
        // SAFETY: `block` is a block in use of this geometry (contract of `add`).
        let class = unsafe { SizeClass::<G>::at(block) };
        debug_assert!(class.is_some(), "a block in use has a class");
        let size = class.map_or(G::SIZES.alignment, SizeClass::block_size) as u32;
        let start = block.as_ptr().map_addr(|address| address & !(G::SIZES.pool_size - 1));
        let pool = self.entry(start);
        let is_new = pool.start.is_null();
        if is_new {
            *pool = WaitingPool { start, size, ..*pool };
        }
        let span = pool.span::<G>(block.addr().get() - start.addr());
        for page in pages(&span) {
            let bytes = span.end.min((page + 1) * PAGE) - span.start.max(page * PAGE);
            pool.pages[page] += bytes as u16;
        }
        // SAFETY: the caller gave up the block (contract of `add`), and every block has room for a
        // word.
        unsafe { block.cast::<*mut u8>().write(pool.listed) };
        // INVARIANT: the caller gave up the block, and its link leads to the other blocks of the
        // list.
        pool.listed = block.as_ptr();
        self.head().used += usize::from(is_new);
    }

    /// Purges all full pages, which are the pages on which every byte belongs to a waiting block.
    /// First removes the blocks that touch a full page from their lists. Then calls `give_back`
    /// with the start and length of each range of full pages, and marks these pages as purged. A
    /// range never extends beyond the end of an arena.
    ///
    /// `give_back` may change the contents of the range that it gets.
    pub(crate) fn purge(&mut self, mut give_back: impl FnMut(NonNull<u8>, usize)) {
        for pool in self.entries().iter_mut().filter(|pool| pool.pages.contains(&FULL)) {
            pool.unlist_full_pages::<G>();
        }
        for place in 0..self.entries().len() {
            let WaitingPool { start, pages, .. } = self.entries()[place];
            for nth in (0..MOST_PAGES).filter(|nth| pages[*nth] == FULL) {
                let page = start.wrapping_add(nth * PAGE);
                let begins_arena = page.addr().is_multiple_of(G::SIZES.arena_size);
                if begins_arena || !self.is_full(page.wrapping_sub(PAGE)) {
                    // SAFETY: the page lies in the pool, so its address is not null.
                    let first = unsafe { NonNull::new_unchecked(page) };
                    give_back(first, PAGE * self.full_pages_from(page));
                }
            }
        }
        for page in self.entries().iter_mut().flat_map(|pool| &mut pool.pages) {
            if *page == FULL {
                *page = PURGED;
            }
        }
    }

    fn is_full(&mut self, page: *mut u8) -> bool {
        let offset = page.addr() % G::SIZES.pool_size;
        // If the table has no entry for the pool, `entry` returns a vacant entry, whose counts are
        // zero.
        self.entry(page.wrapping_sub(offset)).pages[offset / PAGE] == FULL
    }

    /// Returns the number of adjacent full pages that begin at `page`, up to the end of the arena.
    fn full_pages_from(&mut self, page: *mut u8) -> usize {
        let to_end = (G::SIZES.arena_size - page.addr() % G::SIZES.arena_size) / PAGE;
        (0..to_end).take_while(|nth| self.is_full(page.wrapping_add(nth * PAGE))).count()
    }

    /// Calls `visit` once with every waiting block, and frees the memory of the table to `lower`,
    /// from which it must have been allocated. The contents of the blocks are unspecified, because
    /// their pages may have been purged.
    pub(crate) fn unload<A: MemAlloc>(mut self, lower: &A, mut visit: impl FnMut(NonNull<u8>)) {
        for place in 0..self.entries().len() {
            let pool = self.entries()[place];
            Listed(pool.listed).for_each(&mut visit);
            if !pool.pages.contains(&PURGED) {
                continue;
            }
            for offset in pool.offsets::<G>().filter(|offset| pool.touches::<G>(*offset, PURGED)) {
                // SAFETY: the block lies in the pool, so its address is not null. The pool is
                // mapped at least until the last of its waiting blocks is visited.
                visit(unsafe { NonNull::new_unchecked(pool.start.add(offset)) });
            }
        }
        // SAFETY: the head is a block of `lower` (invariant), and is not used any more.
        unsafe { lower.free(Some(self.head.cast())) };
    }
}

/// An iterator over the waiting blocks on the list of a pool. It reads the link in a block before
/// it returns the block, so the caller may overwrite each block that it gets.
struct Listed(
    /// # Invariant
    ///
    /// The pointer is null or points to a waiting block that is on the list of a pool. The user of
    /// this iterator owns the table that contains the list.
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
