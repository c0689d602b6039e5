//! Size classes: each request is rounded up to the block size of its class.
//!
//! ```text
//!   small:   16  32  48  64  …  480  496  512                 `alignment` bytes apart
//!   medium:  576  640  704  768  832  896  960  1024          eight for each doubling, so that
//!            1152 1280 1408 1536 1664 1792 1920 2048  …       at most a ninth of a block is unused
//!   spans:   16 Ki  32 Ki  48 Ki  64 Ki  …                    whole units
//! ```
//!
//! The pages of a span beyond the requested size are not touched, so they use no memory.

#![forbid(unsafe_code)]

use core::{fmt, marker::PhantomData};

use crate::geometry::{
    Geometry, MAX_CLASSES, RetainRule,
    shape::{BlockStart, Shape},
};

/// A full pool becomes used again after `1 / PART_OF_FULL_POOL` of its blocks have been freed.
const PART_OF_FULL_POOL: usize = 8;

/// A full pool becomes used again after at least this many frees, unless it has fewer
/// than [`PART_OF_FULL_POOL`] blocks.
const LEAST_FREES: usize = 4;

/// A full pool becomes used again after at most this many frees.
const MOST_FREES: usize = 16;

/// The approximate number of blocks in a pool of several units, unless the pool would become too
/// large.
const BLOCKS_IN_POOL: usize = 32;

/// A pool of several blocks takes up at most `1 / POOLS_IN_ARENA` of an arena, or a single unit.
const POOLS_IN_ARENA: usize = 8;

/// The number of steps in the table of slots.
const STEPS: usize = 64;

/// A size class of the geometry `G`.
///
/// Class `i` of the small classes has blocks of `(i + 1) * alignment` bytes.
pub struct SizeClass<G> {
    /// # Invariant
    ///
    /// The index is less than `Shape::<G>::CLASSES`.
    index: u8,
    geometry: PhantomData<G>,
}

impl<G: Geometry> SizeClass<G> {
    /// The size of the blocks of each class, in bytes.
    const SIZES: [u32; MAX_CLASSES] = {
        let mut sizes = [0; MAX_CLASSES];
        let mut index = 0;
        while index < Shape::<G>::CLASSES {
            sizes[index] = G::SIZES.block_size_of(index) as u32;
            index += 1;
        }
        sizes
    };

    /// The number of units in a pool of each class.
    const UNITS: [u8; MAX_CLASSES] = {
        let mut units = [1; MAX_CLASSES];
        let mut index = Shape::<G>::LINKED_CLASSES;
        while index < Shape::<G>::CLASSES {
            let best = Self::best_units(G::SIZES.block_size_of(index));
            assert!(
                best * G::SIZES.pool_size < 1 << 31,
                "a pool must be smaller than 2 GiB, because its header stores offsets in 31 bits"
            );
            units[index] = best as u8;
            index += 1;
        }
        units
    };

    /// 2^32 divided by the size of the blocks of each class, rounded up.
    const RECIPROCALS: [u32; MAX_CLASSES] = {
        let mut reciprocals = [0; MAX_CLASSES];
        let mut index = 0;
        while index < Shape::<G>::CLASSES {
            reciprocals[index] = u32::MAX / G::SIZES.block_size_of(index) as u32 + 1;
            index += 1;
        }
        reciprocals
    };

    /// True if [`number_at`](Self::number_at) gets an exact result from a multiplication.
    ///
    /// The function computes `offset / size` as the product of `offset` and `1 / size`, where
    /// `1 / size` is rounded up to a multiple of 2^-32. The rounding makes the product too large by
    /// less than `offset / 2^32`. The exact quotient is at least `1 / size` below the next whole
    /// number. If `offset / 2^32` is at most `1 / size`, the rounding therefore does not change the
    /// whole part of the quotient.
    const MULTIPLIES: bool = {
        let (mut index, mut is_exact) = (0, true);
        while index < G::SIZES.first_span() && index < Shape::<G>::CLASSES {
            let size = G::SIZES.block_size_of(index) as u64;
            let bytes = Self::UNITS[index] as u64 * G::SIZES.pool_size as u64;
            is_exact &= bytes * size < 1 << 32;
            index += 1;
        }
        is_exact
    };

    /// True if no pool has room for more than 64 blocks, unless its blocks are linked.
    const FITS_IN_WORDS: bool = {
        let (mut index, mut fits) = (Shape::<G>::LINKED_CLASSES, true);
        while index < G::SIZES.first_span() && index < Shape::<G>::CLASSES {
            let bytes = Self::UNITS[index] as usize * G::SIZES.pool_size;
            fits &= bytes / G::SIZES.block_size_of(index) <= u64::BITS as usize;
            index += 1;
        }
        fits
    };

    /// The number of frees after which a full pool of each class becomes used again.
    const FREES: [u8; MAX_CLASSES] = {
        let mut frees = [1; MAX_CLASSES];
        let mut index = 0;
        while index < Shape::<G>::CLASSES {
            let class = Self { index: index as u8, geometry: PhantomData };
            let wanted = match class.capacity() / PART_OF_FULL_POOL {
                0..LEAST_FREES if class.capacity() < PART_OF_FULL_POOL => 1,
                0..LEAST_FREES => LEAST_FREES,
                part @ LEAST_FREES..MOST_FREES => part,
                _ => MOST_FREES,
            };
            let fewest = class.least_capacity();
            frees[index] = if wanted < fewest { wanted } else { fewest } as u8;
            index += 1;
        }
        frees
    };

    /// The binary logarithm of the step in bytes between the entries of the table `SLOTS_BY_STEP`.
    ///
    /// The step divides the block size of every class that is neither linked nor a class of spans.
    const STEP_SHIFT: u32 = G::SIZES.shift_of_steps_above(G::SIZES.linked_threshold);

    /// True if [`SLOTS_BY_STEP`](Self::SLOTS_BY_STEP) covers all blocks that share a pool.
    const HAS_TABLE: bool = G::SIZES.largest_shared() >> Self::STEP_SHIFT <= STEPS;

    /// The slot of the class for each step of `1 << STEP_SHIFT` bytes.
    ///
    /// Reading this table is faster than calling [`class_of`](crate::Sizes::class_of), which counts
    /// the leading zeros of the size. With the table, allocating and freeing a block of 4 KiB takes
    /// 8 % less time (measured on an AMD EPYC of the fifth generation).
    const SLOTS_BY_STEP: [u8; STEPS] = {
        let mut slots = [0; STEPS];
        let mut step = 0;
        while Self::HAS_TABLE && step < STEPS {
            if let Some(class) = Self::of((step << Self::STEP_SHIFT) + 1) {
                slots[step] = class.slot() as u8;
            }
            step += 1;
        }
        slots
    };

    /// Returns the smallest class that fits `size`. Returns `None` for 0 and for sizes above the
    /// threshold.
    ///
    /// ```
    /// use obmalloc::{Native, Pools16K, SizeClass};
    ///
    /// assert_eq!(SizeClass::<Pools16K>::of(33).map(|class| class.block_size()), Some(48));
    /// assert!(SizeClass::<Pools16K>::of(513).is_none());
    /// assert_eq!(SizeClass::<Native>::of(513).map(|class| class.block_size()), Some(576));
    /// ```
    #[inline]
    #[must_use]
    pub const fn of(size: usize) -> Option<Self> {
        if let Some(small) = Self::of_small(size) {
            return Some(small);
        }
        let last = size.wrapping_sub(1);
        if last < G::SIZES.arena_threshold {
            // INVARIANT: the last class has blocks of `arena_threshold` bytes.
            Some(Self { index: G::SIZES.class_of(last) as u8, geometry: PhantomData })
        } else {
            None
        }
    }

    /// Returns the smallest class that fits the small request `size`, or `None` if it is not small.
    #[inline]
    #[must_use]
    pub const fn of_small(size: usize) -> Option<Self> {
        let last = size.wrapping_sub(1);
        if last < G::SIZES.small_threshold {
            // INVARIANT: `last` is less than SMALL_CLASSES times the alignment.
            Some(Self { index: (last >> Shape::<G>::SHIFT) as u8, geometry: PhantomData })
        } else {
            None
        }
    }

    /// Returns the [slot](Self::slot) of the class for requests of `last + 1` bytes.
    ///
    /// Returns `None` if there is no such class, or if its blocks are linked.
    ///
    /// This takes fewer instructions than [`of`](Self::of) and [`slot`](Self::slot).
    #[inline]
    pub(crate) const fn unlinked_slot_for(last: usize) -> Option<usize> {
        let (least, shared) = (G::SIZES.linked_threshold, G::SIZES.largest_shared());
        if last.wrapping_sub(least) >= G::SIZES.arena_threshold - least {
            return None;
        }
        let first_span = G::SIZES.first_span() - Shape::<G>::LINKED_CLASSES;
        Some(if last >= shared {
            Shape::<G>::LINKED_SLOTS + first_span + last / G::SIZES.pool_size
        } else if Self::HAS_TABLE {
            Self::SLOTS_BY_STEP[(last >> Self::STEP_SHIFT) % STEPS] as usize
        } else {
            Shape::<G>::LINKED_SLOTS + G::SIZES.class_of(last) - Shape::<G>::LINKED_CLASSES
        })
    }

    /// Returns the number of units for a pool of blocks of `size` bytes, which must not be linked.
    ///
    /// A span is a pool of one block, so it gets just enough units for that block.
    const fn best_units(size: usize) -> usize {
        let unit = G::SIZES.pool_size;
        if 2 * size > unit {
            return size.div_ceil(unit);
        }
        let part = Shape::<G>::POOLS / POOLS_IN_ARENA;
        let most = if part > 0 { part } else { 1 };
        let wanted = (BLOCKS_IN_POOL * size).div_ceil(unit);
        let most = if wanted < most { wanted } else { most };
        // Among the larger half of the allowed numbers of units, we choose the one with the
        // smallest relative tail.
        let (mut best, mut units) = (most, most);
        while units > 0 && 2 * units >= most && units * unit >= size {
            if (units * unit % size) * best < (best * unit % size) * units {
                best = units;
            }
            units -= 1;
        }
        best
    }

    /// Returns the class with the number `index`, if there is one.
    #[inline]
    pub const fn from_index(index: usize) -> Option<Self> {
        if index < Shape::<G>::CLASSES {
            Some(Self { index: index as u8, geometry: PhantomData })
        } else {
            None
        }
    }

    /// Returns the number of the class, counted from 0.
    #[inline]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// Returns the size of the blocks of this class, in bytes.
    #[inline]
    pub const fn block_size(self) -> usize {
        if Shape::<G>::SMALL_ONLY {
            return (self.index as usize + 1) << Shape::<G>::SHIFT;
        }
        Self::SIZES[self.index as usize % MAX_CLASSES] as usize
    }

    /// Returns true if the pools of this class are spans, which have one block.
    #[inline]
    pub const fn is_span(self) -> bool {
        !Shape::<G>::SMALL_ONLY && self.index() >= G::SIZES.first_span()
    }

    /// Returns true if the blocks of this class are *linked*: a free block contains a link to the
    /// next free block of its pool. A pool of linked blocks is always one unit of `pool_size`
    /// bytes.
    ///
    /// See [`Sizes::linked_threshold`](crate::Sizes::linked_threshold).
    #[inline]
    pub const fn is_linked(self) -> bool {
        Shape::<G>::SMALL_ONLY || (self.index as usize) < Shape::<G>::LINKED_CLASSES
    }

    /// Returns the index of the last slot of this class.
    ///
    /// A *slot* is an entry of the table in which the heap looks up the first used pool of a class.
    /// Most classes have one slot. A linked class above `small_threshold` has one for each multiple
    /// of `alignment` that it serves. For example, the class of 576 bytes
    /// in [`Native`](crate::Native) has slots for 528, 544, 560 and 576 bytes. The heap can
    /// therefore find the slot of a linked block by shifting the requested size, which is faster
    /// than computing the class.
    #[inline]
    pub(crate) const fn slot(self) -> usize {
        let index = self.index();
        if Shape::<G>::SMALL_ONLY || index < Shape::<G>::SMALL_CLASSES {
            index
        } else if index < Shape::<G>::LINKED_CLASSES {
            (self.block_size() >> Shape::<G>::SHIFT) - 1
        } else {
            index - Shape::<G>::LINKED_CLASSES + Shape::<G>::LINKED_SLOTS
        }
    }

    /// Returns the number of slots of this class. They are adjacent in the table.
    #[inline]
    pub(crate) const fn slots(self) -> usize {
        let is_alone = self.is_small() || !self.is_linked();
        if is_alone { 1 } else { Shape::<G>::SLOTS_OF_LINKED }
    }

    /// Returns true if the blocks of this class serve small requests.
    #[inline]
    pub const fn is_small(self) -> bool {
        Shape::<G>::SMALL_ONLY || (self.index as usize) < Shape::<G>::SMALL_CLASSES
    }

    /// Returns the number of adjacent units that form a pool of this class.
    #[inline]
    pub const fn units(self) -> usize {
        if Shape::<G>::SMALL_ONLY {
            1
        } else {
            Self::UNITS[self.index as usize % MAX_CLASSES] as usize
        }
    }

    /// Returns the size of a pool of this class, in bytes.
    #[inline]
    pub const fn pool_bytes(self) -> usize {
        self.units() * G::SIZES.pool_size
    }

    /// Returns the size in bytes of the part of a pool that blocks can use.
    ///
    /// For each block that is not linked, a bit in the pool's header shows whether the block is
    /// free. The header has 64 such bits, so the pool has at most 64 blocks.
    #[inline]
    pub(crate) const fn bytes_for_blocks(self) -> usize {
        let most = u64::BITS as usize * self.block_size();
        if Self::FITS_IN_WORDS || self.is_linked() || self.pool_bytes() < most {
            self.pool_bytes()
        } else {
            most
        }
    }

    /// Returns the number of blocks in a pool of this class. A [span](Self::is_span) has only one.
    ///
    /// Some pools have room for fewer blocks:
    /// - With [`HeaderRule::InArena`](crate::HeaderRule::InArena), the first pool of an arena
    ///   shares its memory with the headers of all pools.
    /// - With [`BlockStart::AsInCPython`], a pool of linked blocks begins with unused bytes,
    ///   because a pool of CPython has its header there.
    #[inline]
    pub const fn capacity(self) -> usize {
        (self.bytes_for_blocks() - Shape::<G>::BEFORE_POOL) / self.block_size()
    }

    /// Returns the number of blocks in the pool of this class that has the least room.
    ///
    /// This is the first pool of an arena, in a heap that uses [`BlockStart::AsInCPython`].
    const fn least_capacity(self) -> usize {
        let before = if self.is_linked() {
            BlockStart::AsInCPython.offset::<G>(true)
        } else {
            Shape::<G>::BEFORE_POOL
        };
        (self.bytes_for_blocks() - before) / self.block_size()
    }

    /// Returns the number of the block that contains the byte at `offset` in a pool.
    ///
    /// Blocks are counted from 0. `index` is the number of the pool's class, which must not be a
    /// class of [spans](Self::is_span).
    ///
    /// The result is `offset` divided by the block size, rounded down. A division takes long, so we
    /// multiply `offset` by a reciprocal of the block size, unless the result could be inexact.
    #[inline]
    pub(crate) const fn number_at(index: usize, offset: usize) -> usize {
        if !Self::MULTIPLIES {
            return offset / Self::SIZES[index % MAX_CLASSES] as usize;
        }
        let reciprocal = Self::RECIPROCALS[index % MAX_CLASSES];
        ((offset as u64 * reciprocal as u64) >> u32::BITS) as usize
    }

    /// Returns the number of blocks that must be freed before a full pool becomes used again.
    ///
    /// Under [`RetainRule::Unobservable`], the number is 1, as in CPython. With a larger number,
    /// the heap would return other addresses than CPython.
    ///
    /// Under [`RetainRule::EachClass`], the number is an eighth of the pool's blocks, but at least
    /// 4 and at most 16. If it were 1, a program that alternately frees and allocates a block of a
    /// full pool could make the heap add the pool to the list of used pools and remove it again
    /// each time. A pool of fewer than 8 blocks nevertheless needs only one free, and no pool needs
    /// more frees than it has blocks.
    #[inline]
    pub(crate) const fn frees_until_used(self) -> usize {
        match G::RULES.retain {
            RetainRule::Unobservable => 1,
            RetainRule::EachClass => Self::FREES[self.index as usize % MAX_CLASSES] as usize,
        }
    }

    /// Iterates over all classes, smallest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Shape::<G>::CLASSES).filter_map(Self::from_index)
    }
}

impl<G> Clone for SizeClass<G> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<G> Copy for SizeClass<G> {}

impl<G> PartialEq for SizeClass<G> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl<G> Eq for SizeClass<G> {}

impl<G: Geometry> fmt::Debug for SizeClass<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SizeClass({}: {} bytes)", self.index, self.block_size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::eras::{Classes8To256, Classes8To512, Native, Pools4K, Pools16K};

    fn sizes_fit<G: Geometry>() {
        for size in 1..=G::SIZES.small_threshold {
            let class = SizeClass::<G>::of(size).unwrap();
            assert!(class.block_size() >= size && class.block_size() < size + G::SIZES.alignment);
        }
        assert!(SizeClass::<G>::of(0).is_none());
        assert!(SizeClass::<G>::of(G::SIZES.small_threshold + 1).is_none());
        assert!(SizeClass::<G>::of(usize::MAX).is_none());
    }

    #[test]
    fn the_smallest_fitting_class_serves_a_request() {
        sizes_fit::<Classes8To256>();
        sizes_fit::<Classes8To512>();
        sizes_fit::<Pools16K>();
    }

    #[test]
    fn the_slots_of_unlinked_classes_are_found_without_the_class() {
        fn agrees<G: Geometry>() {
            for size in (0..=G::SIZES.arena_threshold + 2).chain([usize::MAX]) {
                let class = SizeClass::<G>::of(size).filter(|class| !class.is_linked());
                let slot = SizeClass::<G>::unlinked_slot_for(size.wrapping_sub(1));
                assert_eq!(slot, class.map(SizeClass::slot), "{size} bytes");
            }
        }
        agrees::<Native>();
        agrees::<Pools16K>();
    }

    fn capacity<G: Geometry>(size: usize) -> usize {
        SizeClass::<G>::of(size).unwrap().capacity()
    }

    #[test]
    fn pools_hold_as_many_blocks_as_in_cpython() {
        let large = [16, 32, 48, 64, 80, 128, 256, 512].map(capacity::<Pools16K>);
        assert_eq!(large, [1021, 510, 340, 255, 204, 127, 63, 31]);
        let small = [16, 32, 64, 256, 512].map(capacity::<Pools4K>);
        assert_eq!(small, [253, 126, 63, 15, 7]);
        assert_eq!([8, 24].map(capacity::<Classes8To512>), [506, 168]);
    }

    fn block_size(size: usize) -> Option<usize> {
        SizeClass::<Native>::of(size).map(SizeClass::block_size)
    }

    #[test]
    fn at_most_an_eighth_of_a_medium_block_is_lost_to_rounding() {
        for size in 513..=8 << 10 {
            let block = block_size(size).unwrap();
            assert!(size <= block && 8 * (block - size) <= block, "{size} bytes in {block}");
        }
        let sizes = [513, 576, 577, 1024, 1025, 8191, 8192].map(|size| block_size(size).unwrap());
        assert_eq!(sizes, [576, 576, 640, 1024, 1152, 8192, 8192]);
        assert!(SizeClass::<Native>::of_small(513).is_none());
    }

    #[test]
    fn a_span_consists_of_whole_units() {
        for size in (8 << 10) + 1..=Native::SIZES.arena_threshold {
            let class = SizeClass::<Native>::of(size).unwrap();
            assert_eq!(class.block_size(), size.next_multiple_of(16 << 10));
            assert!(class.is_span() && class.block_size() == class.pool_bytes());
        }
        assert_eq!(block_size((480 << 10) + 1), None);
    }

    #[test]
    fn the_number_of_a_block_is_exact() {
        const { assert!(SizeClass::<Native>::MULTIPLIES) };
        for class in SizeClass::<Native>::all().filter(|class| !class.is_span()) {
            for offset in 0..=class.pool_bytes() {
                let number = SizeClass::<Native>::number_at(class.index(), offset);
                assert_eq!(number, offset / class.block_size(), "{class:?}");
            }
        }
    }

    #[test]
    fn a_word_has_a_bit_for_each_block_that_is_not_linked() {
        let mut classes = SizeClass::<Native>::all().filter(|class| !class.is_linked());
        assert!(SizeClass::<Native>::FITS_IN_WORDS && classes.all(|class| class.capacity() <= 64));
    }

    #[test]
    fn a_class_has_the_number_of_its_size() {
        for class in SizeClass::<Native>::all() {
            assert_eq!(SizeClass::of(class.block_size()), Some(class));
        }
    }

    #[test]
    fn a_pool_above_the_small_threshold_is_an_eighth_of_an_arena_or_one_block() {
        for class in SizeClass::<Native>::all().filter(|class| !class.is_small()) {
            let tail = class.pool_bytes() - class.capacity() * class.block_size();
            if class.capacity() > 1 {
                assert!(class.units() <= 8 && 8 * tail <= class.pool_bytes(), "{class:?}");
            } else {
                assert!(class.is_span() && tail == 0);
            }
        }
    }
}
