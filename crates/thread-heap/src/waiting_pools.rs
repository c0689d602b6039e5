//! What waits in an inbox, pool by pool, after another thread has taken the inbox over.
//!
//! ```text
//!   pool    ├─ page ──────┼─ page ──────┼─ page ──────┼─ page ──────┤
//!           │ waits waits │ waits waits │ used  waits │ waits waits │
//!           ├─────────────┼─────────────┼─────────────┼─────────────┤
//!   entry      purged        purged     ▲ 1040 bytes     purged
//!                                       └ listed: the blocks on pages that stay
//! ```
//!
//! The owner regards every waiting block as in use, so it does not touch them, and the pools of
//! these blocks stay as they are. The holder of the table may therefore give a page back to the
//! system if each of its bytes belongs to a waiting block. The bytes behind the last block of a
//! pool can never hold a block, so they count as part of the last block. Headers and blocks that
//! were never handed out do not wait, so their pages always stay.
//!
//! 1. A page is purged only if its count is the size of the page.
//! 2. A block that touches a purged page is on no list: that page says that the block waits.
//! 3. Every other block is on the list of its pool, linked through its first word.
//!
//! The table is itself a node of the inbox. An entry has 32 bytes. Before a carrier's blocks are
//! added, the table reserves room for as many new pools as the carrier has blocks, which is at most
//! 32. It doubles before more than three quarters of its entries would be in use. A table therefore
//! takes at least 2 KiB, and at most 86 bytes for each pool of 16 KiB plus another 3 KiB.

use std::{marker::PhantomData, ops::Range, ptr, ptr::NonNull, slice};

use obmalloc::{Geometry, Shape, SizeClass};
use raw_mem::MemAlloc;

use crate::carrier::Carrier;

/// The unit in which waiting bytes are counted. If the pages of the system are larger, the system
/// gets only those that lie entirely in a purged range.
pub(crate) const PAGE: usize = 4096;

/// The most pages of a pool.
const MOST_PAGES: usize = 4;

/// The count of a page whose bytes all wait.
const FULL: u16 = PAGE as u16;

/// The count of a page that was purged.
const PURGED: u16 = u16::MAX;

/// Entries of a new table.
const FEWEST_ENTRIES: usize = 64;

/// The beginning of a table. Its entries follow.
#[derive(Debug)]
#[repr(C)]
struct Head {
    node: Carrier,
    capacity: usize,
    used: usize,
}

/// What waits in one pool. An entry whose bytes are all zero is vacant.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct WaitingPool {
    /// The first byte of the pool; null if the entry is vacant.
    start: *mut u8,
    /// The first listed block, whose first word is the address of the next.
    listed: *mut u8,
    /// The waiting bytes of each page, or [`PURGED`].
    pages: [u16; MOST_PAGES],
    /// The bytes of each block.
    size: u32,
}

impl WaitingPool {
    /// The bytes of the pool that belong to its block at `offset`.
    fn span<G: Geometry>(&self, offset: usize) -> Range<usize> {
        let end = offset + self.size as usize;
        let is_last = end + self.size as usize > G::SIZES.pool_size;
        offset..if is_last { G::SIZES.pool_size } else { end }
    }

    /// Returns true if the block at `offset` touches a page whose count is `count`.
    fn touches<G: Geometry>(&self, offset: usize, count: u16) -> bool {
        pages(&self.span::<G>(offset)).any(|page| self.pages[page] == count)
    }

    /// The offsets of all blocks that the pool can hold.
    fn offsets<G: Geometry>(&self) -> impl Iterator<Item = usize> + use<G> {
        let is_first = self.start.addr().is_multiple_of(G::SIZES.arena_size);
        let first = if is_first { Shape::<G>::BEFORE_FIRST_POOL } else { Shape::<G>::BEFORE_POOL };
        let size = self.size as usize;
        (first..=G::SIZES.pool_size - size).step_by(size)
    }
}

/// The pages that hold the bytes of `span`.
fn pages(span: &Range<usize>) -> impl Iterator<Item = usize> + use<> {
    span.start / PAGE..span.end.div_ceil(PAGE)
}

/// A table of the pools that have waiting blocks. The holder owns the table and those blocks.
///
/// It has no destructor: [`into_node`](Self::into_node) or [`unload`](Self::unload) ends it.
#[derive(Debug)]
pub(crate) struct WaitingPools<G> {
    /// # Invariant
    ///
    /// - `head` is a block of the layer below that only we own. It holds an initialised `Head`,
    ///   followed by `capacity` initialised entries. The capacity is a power of two, and at least a
    ///   quarter of the entries are vacant.
    /// - Each entry in use describes a pool of a thread heap of the geometry `G` and keeps the
    ///   rules of this module. We exclusively own the waiting blocks.
    head: NonNull<Head>,
    geometry: PhantomData<G>,
}

impl<G: Geometry> WaitingPools<G> {
    /// Makes a table without entries. Returns `None` if `lower` has no memory, or if the pools of
    /// the geometry have more pages than an entry.
    pub(crate) fn new<A: MemAlloc>(lower: &A) -> Option<Self> {
        let supported =
            G::SIZES.pool_size.is_multiple_of(PAGE) && G::SIZES.pool_size / PAGE <= MOST_PAGES;
        if supported { Self::with_capacity(FEWEST_ENTRIES, lower) } else { None }
    }

    fn with_capacity<A: MemAlloc>(capacity: usize, lower: &A) -> Option<Self> {
        let bytes =
            capacity.checked_mul(size_of::<WaitingPool>())?.checked_add(size_of::<Head>())?;
        let head = lower.calloc(1, bytes)?.cast::<Head>();
        // SAFETY: the block is ours, aligned to words, and has room for the head.
        unsafe { head.write(Head { node: Carrier::table_head(), capacity, used: 0 }) };
        // INVARIANT: the head was written just now, and zero bytes are vacant entries.
        Some(Self { head, geometry: PhantomData })
    }

    /// The table that travelled as `node`.
    ///
    /// # Safety
    ///
    /// [`into_node`](Self::into_node) returned `node`, and the caller owns it.
    pub(crate) unsafe fn from_node(node: NonNull<Carrier>) -> Self {
        // INVARIANT: the table was consistent when it became a node.
        Self { head: node.cast(), geometry: PhantomData }
    }

    /// Turns the table into a node for an inbox.
    pub(crate) fn into_node(self) -> NonNull<Carrier> {
        self.head.cast()
    }

    fn head(&mut self) -> &mut Head {
        // SAFETY: the invariant, and the table is borrowed mutably.
        unsafe { self.head.as_mut() }
    }

    fn entries(&mut self) -> &mut [WaitingPool] {
        let capacity = self.head().capacity;
        // SAFETY: the invariant: the entries follow the head.
        let first = unsafe { self.head.add(1).cast::<WaitingPool>() };
        // SAFETY: as above, and the table is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(first.as_ptr(), capacity) }
    }

    /// Makes room for the blocks of as many as `pools` other pools. Returns false if `lower` has no
    /// memory for that; nothing has changed then.
    pub(crate) fn reserve<A: MemAlloc>(&mut self, pools: usize, lower: &A) -> bool {
        let (used, mut capacity) = (self.head().used, self.head().capacity);
        if 4 * (used + pools) <= 3 * capacity {
            return true;
        }
        while 4 * (used + pools) > 3 * capacity {
            capacity *= 2;
        }
        let Some(mut larger) = Self::with_capacity(capacity, lower) else { return false };
        for pool in self.entries().iter().filter(|pool| !pool.start.is_null()) {
            *larger.entry(pool.start) = *pool;
        }
        larger.head().used = used;
        let old = std::mem::replace(self, larger);
        // SAFETY: it is a block of `lower`, and was replaced.
        unsafe { lower.free(Some(old.head.cast())) };
        true
    }

    /// The place of the pool at `start`: its entry, or a vacant one.
    fn place(&mut self, start: *mut u8) -> usize {
        let entries = self.entries();
        let number = (start.addr() / G::SIZES.pool_size) as u64;
        // Multiplying by 2^64 over the golden ratio spreads neighbours; the highest bits are best.
        let bits = entries.len().trailing_zeros();
        let mut place = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as usize;
        // A vacant entry ends the search, and there are some.
        while !entries[place].start.is_null() && entries[place].start != start {
            place = (place + 1) & (entries.len() - 1);
        }
        place
    }

    fn entry(&mut self, start: *mut u8) -> &mut WaitingPool {
        let place = self.place(start);
        &mut self.entries()[place]
    }

    /// Adds a waiting block, for whose pool there is [room](Self::reserve).
    ///
    /// # Safety
    ///
    /// - `block` is a block in use of a thread heap of the geometry `G`.
    /// - The caller owns it, and gives it away.
    pub(crate) unsafe fn add(&mut self, block: NonNull<u8>) {
        // SAFETY: the caller's promise.
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
        // SAFETY: the block is ours, and has room for a word.
        unsafe { block.cast::<*mut u8>().write(pool.listed) };
        // INVARIANT: the block was given away, and links to the others.
        pool.listed = block.as_ptr();
        self.head().used += usize::from(is_new);
    }

    /// Takes the blocks that touch a full page off their lists, calls `give_back` with each range
    /// of full pages, and notes that they are purged. No range crosses the border of an arena.
    ///
    /// After `give_back`, the contents of its range are undefined.
    pub(crate) fn purge(&mut self, mut give_back: impl FnMut(NonNull<u8>, usize)) {
        for pool in self.entries().iter_mut().filter(|pool| pool.pages.contains(&FULL)) {
            unlist_full_pages::<G>(pool);
        }
        for place in 0..self.entries().len() {
            let WaitingPool { start, pages, .. } = self.entries()[place];
            for (page, count) in pages.into_iter().enumerate() {
                if count == FULL && !self.is_full_before(start, page) {
                    // SAFETY: the page lies in the pool.
                    let first = unsafe { NonNull::new_unchecked(start.add(page * PAGE)) };
                    give_back(first, PAGE * self.full_pages_from(start, page));
                }
            }
        }
        for page in self.entries().iter_mut().flat_map(|pool| &mut pool.pages) {
            if *page == FULL {
                *page = PURGED;
            }
        }
    }

    fn is_full(&mut self, start: *mut u8, page: usize) -> bool {
        !start.is_null() && self.entry(start).pages[page] == FULL
    }

    /// Returns true if the page before this one is full, and in the same arena.
    fn is_full_before(&mut self, start: *mut u8, page: usize) -> bool {
        match page.checked_sub(1) {
            Some(before) => self.is_full(start, before),
            None if start.addr().is_multiple_of(G::SIZES.arena_size) => false,
            None => {
                self.is_full(start.wrapping_sub(G::SIZES.pool_size), G::SIZES.pool_size / PAGE - 1)
            }
        }
    }

    /// Counts the full pages that follow each other from this one on, within the arena.
    fn full_pages_from(&mut self, start: *mut u8, page: usize) -> usize {
        let before = start.addr() % G::SIZES.arena_size / PAGE + page;
        let rest = 0..G::SIZES.arena_size / PAGE - before;
        let is_full = |nth: &usize| {
            let (pool, page) = (
                (page + nth) / (G::SIZES.pool_size / PAGE),
                (page + nth) % (G::SIZES.pool_size / PAGE),
            );
            self.is_full(start.wrapping_add(pool * G::SIZES.pool_size), page)
        };
        rest.take_while(is_full).count()
    }

    /// Calls `visit` with every waiting block, once, and gives the table back to `lower`, from which
    /// it came. The contents of the blocks are undefined.
    pub(crate) fn unload<A: MemAlloc>(mut self, lower: &A, mut visit: impl FnMut(NonNull<u8>)) {
        for place in 0..self.entries().len() {
            let pool = self.entries()[place];
            if pool.start.is_null() {
                continue;
            }
            for block in Listed(pool.listed) {
                visit(block);
            }
            if !pool.pages.contains(&PURGED) {
                continue;
            }
            for offset in pool.offsets::<G>().filter(|offset| pool.touches::<G>(*offset, PURGED)) {
                // SAFETY: the block lies in the pool, which is mapped until its last block is
                // visited.
                visit(unsafe { NonNull::new_unchecked(pool.start.add(offset)) });
            }
        }
        // SAFETY: it is a block of `lower`, and its contents were visited.
        unsafe { lower.free(Some(self.head.cast())) };
    }
}

/// Takes the blocks that touch a full page off the list of their pool.
fn unlist_full_pages<G: Geometry>(pool: &mut WaitingPool) {
    let mut kept = ptr::null_mut();
    for block in Listed(pool.listed) {
        if !pool.touches::<G>(block.addr().get() - pool.start.addr(), FULL) {
            // SAFETY: a listed block belongs to the table, and every block has room for a word.
            unsafe { block.cast::<*mut u8>().write(kept) };
            kept = block.as_ptr();
        }
    }
    pool.listed = kept;
}

/// The blocks from the given one on, along their links to null. Each link is read before its block
/// is handed out.
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
        // SAFETY: the invariant: the first word of a listed block is a link.
        self.0 = unsafe { block.cast::<*mut u8>().read() };
        Some(block)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
