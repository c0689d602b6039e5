//! The record of an arena. It tracks which of the arena's pools are free. CPython: `arena_object`.
//!
//! ```text
//!  ├────────┬────────┬────────┬────────┬─ ─ ─ ─ ─ ─ ─ ─ ─ ─┤
//!  │ in use │ free   │ in use │ free   │ uncarved           │
//!  ├────────┴────────┴────────┴────────┴─ ─ ─ ─ ─ ─ ─ ─ ─ ─┤
//!               └─ list of free pools, latest first ─┘
//! ```
//!
//! A carved pool is taken before an uncarved one, so the heap does not touch new memory before it
//! must.
//!
//! With [`RetainRule::EachClass`], [`Units`] records the free units instead of a list. A pool can
//! then consist of several adjacent units:
//!
//! ```text
//!  ├─────────┬────────┬────────┬─ ─ ─ ─ ─ ─ ─ ─ ─ ─┬────────┬────────┬────────┬────────┤
//!  │ headers │ small  │ small  │ free               │ medium pool of 3 units   │ span … │
//!  ├─────────┴────────┴────────┴─ ─ ─ ─ ─ ─ ─ ─ ─ ─┴────────┴────────┴────────┴────────┤
//!     pools of linked blocks take the lowest units       other pools take the highest units
//! ```

use core::ptr::NonNull;

mod last_served;
pub(crate) mod list;
pub(crate) mod map;
pub(crate) mod pages;
pub(crate) mod slots;
pub(crate) mod table;
pub(crate) mod uncarved;
pub(crate) mod units;

use raw_mem::Contents;

use crate::{
    arena::{
        last_served::LastServed,
        pages::Pages,
        units::{Run, Units},
    },
    geometry::{
        Geometry, RetainRule,
        shape::{BlockStart, Shape},
        size_class::SizeClass,
    },
    pool::{PoolPtr, arena_index::ArenaIndex, tag::HeapTag},
};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Arena {
    /// # Invariant
    ///
    /// Points to an aligned arena that is valid for reading and writing. `None` if unused.
    base: Option<NonNull<u8>>,
    /// The number of free units, including uncarved ones.
    free_units: u32,
    /// The number of units in pools that their classes retain.
    pub(crate) retained_units: u32,
    /// With [`RetainRule::Unobservable`], the carved pools are the first `carved` pools.
    carved: u32,
    /// With [`RetainRule::Unobservable`], the carved free pools, the pool that was freed last
    /// first.
    free: Option<PoolPtr>,
    /// With [`RetainRule::EachClass`], which units are free.
    units: Units,
    /// With [`RetainRule::EachClass`], the class that each unit served last, for linked blocks.
    last_served: LastServed,
    /// The uncarved pages of pools, which are not divided into blocks. See the module `uncarved`.
    uncarved: Pages,
    /// The pages that were purged and have not been used since.
    purged: Pages,
    /// How many purged pages were used again since the last call of [`Arena::take_reused`].
    reused: u32,
    /// The neighbours in the list of usable arenas. In an unused record, `next` links to the next
    /// unused one.
    pub(crate) next: Option<ArenaIndex>,
    pub(crate) prev: Option<ArenaIndex>,
}

/// The heap that a pool comes from, as far as the pool's header shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) tag: HeapTag,
    pub(crate) blocks: BlockStart,
}

impl Arena {
    pub(crate) const UNUSED: Self = Self {
        base: None,
        free_units: 0,
        retained_units: 0,
        carved: 0,
        free: None,
        units: Units::NONE,
        last_served: LastServed::NONE,
        uncarved: Pages::NONE,
        purged: Pages::NONE,
        reused: 0,
        next: None,
        prev: None,
    };

    /// Makes this record describe the arena at `base`, which must not contain a carved pool.
    ///
    /// # Safety
    ///
    /// - `base` must point to `arena_size` bytes that are aligned to `arena_size`, and valid for
    ///   reads and writes.
    /// - Until [`clear`](Self::clear) is called, only the owner of this `Arena` value may use these
    ///   bytes.
    /// - If `contents` is [`Contents::Zero`], all of these bytes must be zero.
    pub(crate) unsafe fn set<G: Geometry>(
        &mut self,
        base: NonNull<u8>,
        contents: Contents,
        tag: HeapTag,
    ) {
        let units = match G::RULES.retain {
            RetainRule::Unobservable => Units::NONE,
            RetainRule::EachClass => Units::all_free(Shape::<G>::POOLS, contents),
        };
        // SAFETY: the arena is valid, and nothing else uses it (contract of `set`).
        unsafe { PoolPtr::tag_arena::<G>(base, tag) };
        let free_units = Shape::<G>::POOLS as u32;
        // INVARIANT: `base` is aligned, and valid for the whole arena (contract of `set`).
        *self = Self { base: Some(base), free_units, units, ..Self::UNUSED };
    }

    /// Makes the record unused, and returns the first byte of its arena.
    pub(crate) fn clear(&mut self) -> Option<NonNull<u8>> {
        core::mem::replace(self, Self::UNUSED).base
    }

    pub(crate) fn base(&self) -> Option<NonNull<u8>> {
        self.base
    }

    pub(crate) fn free_units(&self) -> usize {
        self.free_units as usize
    }

    /// Returns true if all pools of the arena are free or retained, and at least one is retained.
    pub(crate) fn is_pinned<G: Geometry>(&self) -> bool {
        let retained = self.retained_units as usize;
        retained > 0 && self.free_units() + retained == Shape::<G>::POOLS
    }

    pub(crate) fn is_free<G: Geometry>(&self) -> bool {
        self.free_units() == Shape::<G>::POOLS
    }

    /// Takes a pool for `class` that begins at a multiple of `align` units, if the arena has one.
    pub(crate) fn take_pool<G: Geometry>(
        &mut self,
        index: ArenaIndex,
        origin: Origin,
        class: SizeClass<G>,
        align: usize,
    ) -> Option<PoolPtr> {
        let pool = match G::RULES.retain {
            RetainRule::Unobservable => match self.free {
                Some(first) => {
                    self.free = first.header().next.take();
                    first
                }
                None => self.carve_next::<G>(index, origin)?,
            },
            RetainRule::EachClass => self.take_run(index, origin, class, align)?,
        };
        self.free_units -= class.units() as u32;
        Some(pool)
    }

    fn carve_next<G: Geometry>(&mut self, index: ArenaIndex, origin: Origin) -> Option<PoolPtr> {
        let unit = self.carved as usize;
        if unit == Shape::<G>::POOLS {
            return None;
        }
        self.carved += 1;
        // SAFETY: the unit lies in the arena, and no pool was carved there yet.
        unsafe { self.carve::<G>(unit, index, origin) }
    }

    /// Carves a pool that begins at `unit`.
    ///
    /// # Safety
    ///
    /// - `unit` must be the index of a unit.
    /// - No pool may have been carved at `unit` since [`set`](Self::set).
    unsafe fn carve<G: Geometry>(
        &self,
        unit: usize,
        index: ArenaIndex,
        origin: Origin,
    ) -> Option<PoolPtr> {
        // SAFETY: the unit lies in the arena (contract), and `base` is valid for the whole arena.
        let start = unsafe { self.base?.add(unit * G::SIZES.pool_size) };
        // SAFETY: the arena is valid and aligned (invariant of `base`). No pool is here (contract).
        Some(unsafe { PoolPtr::carve::<G>(start, index, origin.tag, origin.blocks) })
    }

    /// Takes the units of a pool for `class`.
    ///
    /// For linked blocks, prefers a unit that last served `class`, because its blocks may still be
    /// in the processor's cache.
    fn take_run<G: Geometry>(
        &mut self,
        index: ArenaIndex,
        origin: Origin,
        class: SizeClass<G>,
        align: usize,
    ) -> Option<PoolPtr> {
        let run = if class.is_linked() {
            // The first pool begins at a multiple of `small_threshold`, so larger blocks would not
            // be aligned there.
            let from = usize::from(!class.is_small());
            let class = class.index() as u8;
            let preferred = self.last_served.lowest(class, self.units.free_and_dirty_from(from));
            let first = preferred.or_else(|| self.units.lowest_from(from))?;
            self.last_served.note(first, class);
            Run { first, units: 1 }
        } else {
            self.units.find_run(class.units(), align)?
        };
        self.units.take(run);
        let was_purged = !self.purged.is_empty() && self.note_reused::<G>(run.pages::<G>());
        let pool = self.unit::<G>(run.first, index, origin)?;
        if was_purged {
            pool.header().forget_used_memory();
        }
        for unit in run.inner_units_of(class) {
            self.unit::<G>(unit, index, origin)?.header().become_inner(pool);
        }
        if class.is_span() {
            // The program may leave these units untouched until they serve other pools.
            let others =
                (run.first + 1..run.first + run.units).filter_map(|at| self.carved_at::<G>(at));
            others.for_each(|unit| unit.header().forget_used_memory());
        }
        Some(pool)
    }

    /// Returns the pool at `unit`. Carves the pool if no pool was carved there before.
    fn unit<G: Geometry>(
        &mut self,
        unit: usize,
        index: ArenaIndex,
        origin: Origin,
    ) -> Option<PoolPtr> {
        if self.units.is_carved(unit) {
            return self.carved_at::<G>(unit);
        }
        // SAFETY: the units of a run lie in the arena, and no pool was carved at this one yet.
        let pool = unsafe { self.carve::<G>(unit, index, origin) };
        self.units.note_carved(unit);
        pool
    }

    /// Returns true if the free unit is not backed by memory, because it was never used or was
    /// purged.
    #[cfg(feature = "serde")]
    pub(crate) fn is_clean<G: Geometry>(&self, unit: usize) -> bool {
        match G::RULES.retain {
            RetainRule::Unobservable => unit >= self.carved as usize,
            RetainRule::EachClass => self.units.is_zero(Run { first: unit, units: 1 }),
        }
    }

    /// Puts back `pool`, which must have been taken from this arena and be free.
    pub(crate) fn put_pool<G: Geometry>(&mut self, pool: PoolPtr) {
        let run = self.run_of::<G>(pool);
        match G::RULES.retain {
            RetainRule::Unobservable => {
                pool.header().next.set(self.free);
                self.free = Some(pool);
            }
            RetainRule::EachClass => {
                let class = pool.header().class::<G>();
                let inner = class.into_iter().flat_map(|class| run.inner_units_of(class));
                for unit in inner.filter_map(|unit| self.carved_at::<G>(unit)) {
                    unit.header().leave_pool();
                }
                self.units.put(run);
                if !self.uncarved.is_empty() {
                    self.uncarved.remove(run.pages::<G>());
                }
                self.publish_dirty::<G>();
            }
        }
        self.free_units += run.units as u32;
    }

    /// Tells other threads which units may be backed by memory. See [`list`].
    fn publish_dirty<G: Geometry>(&self) {
        if let Some(base) = self.base {
            // SAFETY: the arena is valid (invariant of `base`), and belongs to the caller's heap.
            unsafe { list::publish_dirty::<G>(base, self.units.dirty()) };
        }
    }

    /// Tells other threads which pages were purged and have not been used since. See [`list`].
    fn publish_purged<G: Geometry>(&self) {
        if let Some(base) = self.base {
            // SAFETY: as above.
            unsafe { list::publish_purged::<G>(base, self.purged) };
        }
    }

    /// Returns true if the part of `pool` that no block has used yet is known to be zero.
    pub(crate) fn is_zero<G: Geometry>(&self, pool: PoolPtr) -> bool {
        G::RULES.retain == RetainRule::EachClass && self.units.is_zero(self.run_of::<G>(pool))
    }

    fn run_of<G: Geometry>(&self, pool: PoolPtr) -> Run {
        let units = pool.header().class::<G>().map_or(1, SizeClass::units);
        Run { first: pool.unit::<G>(), units }
    }

    /// Returns the pool that was carved at `unit`, or `None` if none was.
    fn carved_at<G: Geometry>(&self, unit: usize) -> Option<PoolPtr> {
        let is_carved = match G::RULES.retain {
            RetainRule::Unobservable => unit < self.carved as usize,
            RetainRule::EachClass => self.units.is_carved(unit),
        };
        let base = self.base.filter(|_| is_carved)?;
        // SAFETY: a pool was carved at this unit, and the arena is mapped (invariant of `base`).
        Some(unsafe { PoolPtr::carved_at::<G>(base.add(unit * G::SIZES.pool_size)) })
    }

    /// Returns the numbers of free units that the record knows without reading the headers.
    pub(crate) fn known_free<G: Geometry>(&self) -> FreeUnits {
        match G::RULES.retain {
            RetainRule::Unobservable => {
                let listed = core::iter::successors(self.free, |pool| pool.header().next.get());
                FreeUnits {
                    listed: listed.count(),
                    uncarved: Shape::<G>::POOLS - self.carved as usize,
                }
            }
            RetainRule::EachClass => {
                let listed = self.units.free_and_carved();
                FreeUnits { listed, uncarved: self.units.count() - listed }
            }
        }
    }

    /// Iterates over the pools that were carved, in ascending order.
    pub(crate) fn pools<G: Geometry>(&self) -> impl Iterator<Item = PoolPtr> {
        let mut next = 0;
        core::iter::from_fn(move || {
            while next < Shape::<G>::POOLS {
                let unit = self.carved_at::<G>(next);
                // Only the first header of a pool describes the pool, so we skip its other headers.
                next += unit.map_or(1, |pool| pool.header().units_in_use::<G>());
                if unit.is_some() {
                    return unit;
                }
            }
            None
        })
    }
}

impl Run {
    /// Returns the inner units, whose headers link to the first unit.
    ///
    /// A span has no inner units, because its block begins in the first unit.
    fn inner_units_of<G: Geometry>(self, class: SizeClass<G>) -> core::ops::Range<usize> {
        if class.is_span() { 0..0 } else { self.first + 1..self.first + self.units }
    }
}

/// The numbers of free units of an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FreeUnits {
    /// Units that were carved. They are in the list of free pools, or marked as free.
    pub(crate) listed: usize,
    pub(crate) uncarved: usize,
}

#[cfg(test)]
mod tests {
    use core::ptr::{self, NonNull};
    use std::vec::Vec;

    use raw_mem::{Malloc, MmapArenas};

    use crate::{
        geometry::{
            Geometry,
            eras::{Native, Pools16K},
            size_class::SizeClass,
        },
        heap::Heap,
        pool::block::BlockPtr,
    };

    const SIZES: [usize; 4] = [512, 256, 128, 64];

    fn fill<G: Geometry>(heap: &mut Heap<MmapArenas, Malloc, G>, pools: usize) -> Vec<Vec<usize>> {
        let mut blocks = |size: usize| {
            let block = heap.alloc(SizeClass::of(size).unwrap()).unwrap();
            block.into_start().expose_provenance().get()
        };
        let count = |size| (pools * G::SIZES.pool_size - pools * 48) / size;
        SIZES.map(|size| (0..count(size)).map(|_| blocks(size)).collect()).to_vec()
    }

    /// Frees all blocks of a heap and allocates them again.
    ///
    /// For each size, returns how many blocks lie in the same pools as before, and the number of
    /// all blocks.
    fn refill<G: Geometry>() -> Vec<(usize, usize)> {
        let mut heap = Heap::<_, _, G>::with_geometry(MmapArenas::new(), Malloc);
        let before = fill(&mut heap, 3);
        for block in before.iter().flatten() {
            let start = NonNull::new(ptr::with_exposed_provenance_mut(*block)).unwrap();
            // SAFETY: the block was allocated from this heap, and is freed once.
            unsafe { heap.free(BlockPtr::from_start(start)) };
        }
        heap.check_invariants();
        let after = fill(&mut heap, 3);
        heap.check_invariants();
        let pool = |block: &usize| block / G::SIZES.pool_size;
        let in_same = |(before, after): (&Vec<usize>, &Vec<usize>)| {
            let before: Vec<_> = before.iter().map(pool).collect();
            (after.iter().filter(|block| before.contains(&pool(block))).count(), after.len())
        };
        before.iter().zip(&after).map(in_same).collect()
    }

    #[test]
    fn a_class_takes_the_free_pools_that_it_used_before() {
        for (same, all) in refill::<Native>() {
            assert_eq!(same, all);
        }
    }

    #[test]
    fn cpythons_geometry_takes_the_pool_that_was_freed_last() {
        let (same, all) = refill::<Pools16K>()[0];
        assert!(same < all / 2, "{same} of {all} blocks");
    }
}
