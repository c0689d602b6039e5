//! Pages of used pools that are no longer divided into blocks, and pages that are purged.
//!
//! If all blocks on a page are free, the heap can remove these blocks from the free list of their
//! pool. The page is then *uncarved*, which means that it is not divided into blocks. An uncarved
//! page that is not needed for some time is purged, which means that its memory returns to the
//! system.
//!
//! ```text
//!   pool        ├─ page ──────┼─ page ──────┼─ page ──────┼─ page ──────┤
//!   blocks      │ used   free │ free   free │ free   free │ free   used │
//!   free list   │        ●    │             │             │ ●           │
//!   uncarved    ·             1             1             ·
//!   purged      ·             1             ·             ·
//! ```
//!
//! A `1` stands for a bit that is set in the record of the arena.
//!
//! 1. A block that is in use or on the free list never touches an uncarved page. Every other block
//!    that touches an uncarved page counts as uncarved, too.
//! 2. When a pool has no other free block left, the heap carves the pool's lowest uncarved page
//!    into blocks again.
//! 3. A purged page is a page whose memory was returned to the system. It is uncarved or belongs to
//!    a free unit of the arena, and nothing has touched it since the purge.
//!
//! The fast paths that allocate and free blocks do no extra work for these rules.

#![forbid(unsafe_code)]

use core::{cmp, ops::Range};

use raw_mem::mark_accessible;

use crate::{
    arena::{
        Arena,
        pages::{MOST_PAGES, PAGE, Pages},
        units::Run,
    },
    geometry::{
        Geometry,
        shape::{BlockStart, Shape},
        size_class::SizeClass,
    },
    pool::{PoolPtr, State},
};

/// The largest page of any system with this architecture, in bytes.
const LARGEST_PAGE: usize = if cfg!(target_arch = "x86_64") { PAGE } else { 64 << 10 };

impl Run {
    /// Returns the pages of the units, or an empty range if the geometry cannot purge.
    pub(super) fn pages<G: Geometry>(self) -> Range<usize> {
        let in_unit = if Shape::<G>::PURGES { G::SIZES.pool_size / PAGE } else { 0 };
        self.first * in_unit..(self.first + self.units) * in_unit
    }
}

/// The blocks and pages of a pool of several blocks.
#[derive(Clone)]
struct Layout {
    pages: Range<usize>,
    /// The offset of the first block.
    first: usize,
    /// The offset after the last carved block.
    end: usize,
    size: usize,
}

impl Layout {
    fn of<G: Geometry>(pool: PoolPtr, class: SizeClass<G>, run: Run) -> Self {
        let header = pool.header();
        let first = header.first_offset::<G>();
        Self { pages: run.pages::<G>(), first, end: header.next_offset(), size: class.block_size() }
    }

    /// Returns the pages of the arena that the block at `offset` touches.
    fn pages_of(&self, offset: usize) -> Range<usize> {
        let end = offset + self.size;
        self.pages.start + offset / PAGE..self.pages.start + end.div_ceil(PAGE)
    }

    /// Returns true if the block at `offset` touches one of `pages`.
    fn touches(&self, offset: usize, pages: Pages) -> bool {
        pages.first_in(self.pages_of(offset)).is_some()
    }

    /// Returns the offsets of the carved blocks that touch uncarved pages.
    fn uncarved_blocks(self, uncarved: Pages) -> impl Iterator<Item = usize> {
        (self.first..self.end)
            .step_by(self.size)
            .filter(move |offset| self.touches(*offset, uncarved))
    }
}

/// Counts the free bytes on each page of a pool.
struct FreeBytes([u16; MOST_PAGES]);

impl FreeBytes {
    fn add(&mut self, bytes: Range<usize>) {
        let mut from = bytes.start;
        while from < bytes.end {
            let to = cmp::min(bytes.end, (from / PAGE + 1) * PAGE);
            self.0[from / PAGE % MOST_PAGES] += (to - from) as u16;
            from = to;
        }
    }

    fn fill(&self, page: usize) -> bool {
        usize::from(self.0[page % MOST_PAGES]) == PAGE
    }
}

impl Arena {
    /// Takes the blocks on completely free pages off the free lists of their pools.
    ///
    /// This function searches the pools that have several blocks and are neither free nor full. If
    /// it finds a page on which all blocks are free, it removes these blocks from the free list.
    /// The page is then *uncarved*, which means that it is no longer divided into blocks.
    /// Later, [`purge`](Self::purge) can return its memory to the system.
    ///
    /// Takes O(pools) time. For each pool that has enough free bytes for a page, adds O(free
    /// blocks).
    pub(crate) fn uncarve<G: Geometry>(&mut self) {
        let mut unit = 0;
        while unit < Shape::<G>::POOLS {
            let pool = self.carved_at::<G>(unit);
            unit += pool.map_or(1, |pool| pool.header().units_in_use::<G>());
            if let Some(pool) = pool {
                self.uncarve_pool::<G>(pool);
            }
        }
    }

    fn uncarve_pool<G: Geometry>(&mut self, pool: PoolPtr) {
        let header = pool.header();
        let Some(class) = header.class::<G>().filter(|class| !class.is_span()) else { return };
        if !matches!(header.state(), State::Used | State::Retained) {
            return;
        }
        let run = self.run_of::<G>(pool);
        let layout = Layout::of(pool, class, run);
        let known = self.uncarved.count_in(layout.pages.clone());
        let free = class.pool_bytes() - header.in_use::<G>() * layout.size;
        if free < (known + 1) * PAGE {
            return;
        }
        let free = self.free_bytes::<G>(pool, &layout);
        // We mark no page after the pool's last block, and no untouched page after the last carved
        // block.
        let blocks_end = layout.first + header.capacity(class) * layout.size;
        let end = if self.units.is_zero(run) { layout.end } else { blocks_end };
        let mut new = Pages::NONE;
        for page in layout.pages.start..layout.pages.start + end.div_ceil(PAGE) {
            if free.fill(page - layout.pages.start) && !self.uncarved.contains(page) {
                new.insert(page..page + 1);
            }
        }
        if new.is_empty() {
            return;
        }
        let start = pool.start::<G>().addr().get();
        pool.retain_listed::<G>(|block| !layout.touches(block.addr().get() - start, new));
        new.runs().for_each(|run| self.uncarved.insert(run));
        header.note_uncarved_pages(true);
    }

    /// Counts the bytes on each page of `pool` that are neither in use nor part of a header.
    fn free_bytes<G: Geometry>(&self, pool: PoolPtr, layout: &Layout) -> FreeBytes {
        let mut free = FreeBytes([0; MOST_PAGES]);
        let start = pool.start::<G>().addr().get();
        let is_first = start.is_multiple_of(G::SIZES.arena_size);
        free.add(BlockStart::Aligned.offset::<G>(is_first)..layout.first);
        free.add(layout.end..layout.pages.len() * PAGE);
        for block in pool.free_blocks::<G>() {
            let offset = block.addr().get() - start;
            free.add(offset..offset + layout.size);
        }
        for offset in layout.clone().uncarved_blocks(self.uncarved) {
            free.add(offset..offset + layout.size);
        }
        free
    }

    /// Carves the lowest uncarved page of `pool` that yields a block. The free list must be empty.
    ///
    /// Returns false if the pool has no such page before its `next_offset`.
    pub(crate) fn carve_page<G: Geometry>(&mut self, pool: PoolPtr) -> bool {
        let Some(class) = pool.header().class::<G>() else { return false };
        let layout = Layout::of(pool, class, self.run_of::<G>(pool));
        let start = layout.pages.start;
        let below = start..start + layout.end.div_ceil(PAGE);
        while let Some(page) = self.uncarved.first_in(below.clone()) {
            self.forget_pages::<G>(page..page + 1, pool, &layout);
            if let Some((first, last)) = self.blocks_on(page - start, &layout) {
                pool.list_blocks::<G>(first, last - first);
                return true;
            }
        }
        false
    }

    /// Returns the offsets of the first and the last block that touch `page` but no uncarved page.
    fn blocks_on(&self, page: usize, layout: &Layout) -> Option<(usize, usize)> {
        let &Layout { first, size, .. } = layout;
        let blocks = (layout.end - first) / size;
        let behind = ((page + 1) * PAGE - 1).checked_sub(first)? / size + 1;
        let mut from = (page * PAGE).saturating_sub(first) / size;
        let mut to = cmp::min(blocks, behind);
        while from < to && layout.touches(first + from * size, self.uncarved) {
            from += 1;
        }
        while from < to && layout.touches(first + (to - 1) * size, self.uncarved) {
            to -= 1;
        }
        (from < to).then(|| (first + from * size, first + (to - 1) * size))
    }

    /// Records that blocks were carved. `before` is the pool's `next_offset` before the carving.
    pub(crate) fn note_carved<G: Geometry>(&mut self, pool: PoolPtr, before: usize) {
        let Some(class) = pool.header().class::<G>() else { return };
        let layout = Layout::of(pool, class, self.run_of::<G>(pool));
        let start = layout.pages.start;
        let pages = start + before / PAGE..start + layout.end.div_ceil(PAGE);
        self.forget_pages::<G>(pages, pool, &layout);
    }

    /// Records that `pages` of `pool` are used again.
    fn forget_pages<G: Geometry>(&mut self, pages: Range<usize>, pool: PoolPtr, layout: &Layout) {
        self.uncarved.remove(pages.clone());
        self.note_reused::<G>(pages);
        pool.header().note_uncarved_pages(self.uncarved.first_in(layout.pages.clone()).is_some());
    }

    /// Records that `pages` are used. Counts the pages among them that had been purged, and returns
    /// true if there are any.
    pub(super) fn note_reused<G: Geometry>(&mut self, pages: Range<usize>) -> bool {
        let reused = self.purged.count_in(pages.clone());
        if reused > 0 {
            self.reused += reused as u32;
            if let Some(base) = self.base() {
                mark_accessible(base.addr().get() + pages.start * PAGE, pages.len() * PAGE);
            }
            self.purged.remove(pages);
            self.publish_purged::<G>();
        }
        reused > 0
    }

    /// Returns how many purged pages were used again since the last call.
    pub(crate) fn take_reused(&mut self) -> usize {
        core::mem::take(&mut self.reused) as usize
    }

    /// Purges free units and uncarved pages. If `only_idle` is true, skips units that became free
    /// after the last call of [`note_idle`](Self::note_idle).
    ///
    /// Calls `purge` for each range of pages until `purge` returns false. Returns the number of
    /// purged pages.
    pub(crate) fn purge<G: Geometry>(
        &mut self,
        only_idle: bool,
        mut purge: impl FnMut(Range<usize>) -> bool,
    ) -> usize {
        let mut wanted = self.uncarved;
        for unit in self.units.free_and_dirty(only_idle) {
            wanted.insert(unit_pages::<G>(unit));
        }
        wanted.remove(0..Shape::<G>::BEFORE_FIRST_POOL.div_ceil(PAGE));
        let mut purged = 0;
        for run in wanted.without(self.purged).runs() {
            if !purge(run.clone()) {
                break;
            }
            purged += run.len();
            self.purged.insert(run);
        }
        if G::SIZES.pool_size >= LARGEST_PAGE {
            let is_zero = |unit: &usize| {
                let pages = unit_pages::<G>(*unit);
                self.purged.count_in(pages.clone()) == pages.len()
            };
            for unit in self.units.free_and_dirty(false).filter(is_zero) {
                self.units.note_zero(unit);
            }
        }
        if purged > 0 {
            self.publish_purged::<G>();
            self.publish_dirty::<G>();
        }
        purged
    }

    /// Returns the size in bytes of the free units that may be backed by memory.
    pub(crate) fn retained_bytes<G: Geometry>(&self) -> usize {
        self.units.free_and_dirty(false).count() * G::SIZES.pool_size
    }

    /// Records which units are free now.
    pub(crate) fn note_idle(&mut self) {
        self.units.note_idle();
    }

    /// Returns the offsets of the uncarved blocks of `pool` before its `next_offset`.
    pub(crate) fn uncarved_blocks<G: Geometry>(
        &self,
        pool: PoolPtr,
    ) -> impl Iterator<Item = usize> {
        let class = pool.header().class::<G>().filter(|_| pool.header().has_uncarved_pages());
        let layout = class.map(|class| Layout::of(pool, class, self.run_of::<G>(pool)));
        let uncarved = self.uncarved;
        layout.into_iter().flat_map(move |layout| layout.uncarved_blocks(uncarved))
    }

    /// Asserts the rules of this module for `pool`, which must be in use.
    pub(crate) fn check_pages<G: Geometry>(&self, pool: PoolPtr) {
        let Some(class) = pool.header().class::<G>().filter(|_| Shape::<G>::PURGES) else { return };
        let layout = Layout::of(pool, class, self.run_of::<G>(pool));
        let has_any = self.uncarved.first_in(layout.pages.clone()).is_some();
        assert_eq!(pool.header().has_uncarved_pages(), has_any, "the header knows of them");
        assert!(!has_any || !pool.header().state().is_full(), "a full pool has none");
        for page in layout.pages.clone() {
            let is_used = self.purged.contains(page) && !self.uncarved.contains(page);
            assert!(!is_used, "purged pages of a pool are uncarved");
        }
        let start = pool.start::<G>().addr().get();
        for block in pool.free_blocks::<G>() {
            let offset = block.addr().get() - start;
            assert!(!layout.touches(offset, self.uncarved), "listed blocks are carved");
        }
    }
}

/// Returns the pages of a unit.
fn unit_pages<G: Geometry>(unit: usize) -> Range<usize> {
    Run { first: unit, units: 1 }.pages::<G>()
}
