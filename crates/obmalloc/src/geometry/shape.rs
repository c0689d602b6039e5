//! Constants that follow from the sizes and rules of a geometry.

#![forbid(unsafe_code)]

use core::marker::PhantomData;

use raw_mem::ArenaSize;

use crate::{
    arena::pages::{MAX_PAGES, MOST_PAGES, PAGE},
    geometry::{Geometry, HeaderRule, MAX_CLASSES, MAX_POOLS, RetainRule},
};

/// The size of a pool's header in bytes. CPython: `POOL_OVERHEAD`.
pub(crate) const POOL_OVERHEAD: usize = 48;

const CACHE_LINE: usize = 64;

/// The counts and offsets that follow from the sizes and rules of a [`Geometry`].
#[derive(Clone, Copy, Debug)]
pub struct Shape<G>(PhantomData<G>);

impl<G: Geometry> Shape<G> {
    /// The number of size classes of small requests.
    pub const SMALL_CLASSES: usize = G::SIZES.small_classes();

    /// The number of size classes whose free blocks are linked.
    pub(crate) const LINKED_CLASSES: usize = G::SIZES.linked_classes();

    /// The number of size classes.
    pub const CLASSES: usize = G::SIZES.class_of(G::SIZES.arena_threshold - 1) + 1;
    /// True if every request that an arena serves is small, so that every pool is one unit.
    pub(crate) const SMALL_ONLY: bool = Self::CLASSES == Self::SMALL_CLASSES;

    /// The number of slots of all linked classes. There is one for each multiple of `alignment`.
    pub(crate) const LINKED_SLOTS: usize = G::SIZES.linked_threshold / G::SIZES.alignment;

    /// The number of slots of each linked class above `small_threshold`.
    pub(crate) const SLOTS_OF_LINKED: usize = match Self::LINKED_CLASSES - Self::SMALL_CLASSES {
        0 => 1,
        classes => (Self::LINKED_SLOTS - Self::SMALL_CLASSES) / classes,
    };

    /// The number of units in an arena. A pool of linked blocks is one unit.
    pub const POOLS: usize = G::SIZES.arena_size / G::SIZES.pool_size;
    /// The size of an arena, in the type that an arena source expects.
    pub const ARENA: ArenaSize = match (ArenaSize::new(G::SIZES.arena_size), Self::CONSISTENT) {
        (Some(size), ()) => size,
        (None, ()) => panic!("no source has arenas of this size"),
    };
    /// The binary logarithm of the alignment: `n` bytes have the class `(n - 1) >> SHIFT`.
    pub(crate) const SHIFT: u32 = G::SIZES.alignment.trailing_zeros();
    /// The offset of the tag in an arena that begins with its headers.
    pub(crate) const TAG: usize = (Self::POOLS * POOL_OVERHEAD).next_multiple_of(CACHE_LINE);
    /// The offset of the first block in the first pool of an arena, in bytes.
    pub const BEFORE_FIRST_POOL: usize = match G::RULES.headers {
        HeaderRule::InPools => POOL_OVERHEAD,
        HeaderRule::InArena => {
            let headers_and_tag = Self::TAG + CACHE_LINE;
            headers_and_tag.next_multiple_of(G::SIZES.small_threshold.next_power_of_two())
        }
    };
    /// The offset of the first block in each other pool, in bytes.
    pub const BEFORE_POOL: usize = match G::RULES.headers {
        HeaderRule::InPools => POOL_OVERHEAD,
        HeaderRule::InArena => 0,
    };

    /// True if free units and free pages inside pools can be purged.
    ///
    /// A purge returns free pages to the system, which discards their contents, so free pages must
    /// not contain data of the heap. With [`HeaderRule::InArena`], the pool headers lie at the
    /// start of the arena, which is never purged. With [`RetainRule::EachClass`], the arena's
    /// record has bits that show which units are free.
    pub(crate) const PURGES: bool = matches!(G::RULES.headers, HeaderRule::InArena)
        && matches!(G::RULES.retain, RetainRule::EachClass)
        && G::SIZES.pool_size >= PAGE
        && G::SIZES.pool_size <= MOST_PAGES * PAGE
        && G::SIZES.arena_size <= MAX_PAGES * PAGE;

    const CONSISTENT: () = {
        let sizes = G::SIZES;
        assert!(sizes.alignment.is_power_of_two() && sizes.alignment >= size_of::<usize>());
        assert!(Self::BEFORE_FIRST_POOL.is_multiple_of(sizes.alignment), "blocks must be aligned");
        assert!(sizes.small_threshold > 0);
        assert!(sizes.small_threshold.is_multiple_of(sizes.alignment));
        assert!(Self::CLASSES <= MAX_CLASSES, "too many size classes");
        let of_small = sizes.linked_threshold / sizes.small_threshold;
        assert!(sizes.linked_threshold.is_multiple_of(sizes.small_threshold));
        assert!(
            of_small == 1 || of_small == 2 && !Self::SMALL_ONLY,
            "`linked_threshold` is too large"
        );
        let slots = Self::CLASSES - Self::LINKED_CLASSES + Self::LINKED_SLOTS;
        assert!(slots <= MAX_CLASSES, "too many slots");
        if sizes.arena_threshold != sizes.small_threshold {
            assert!(sizes.small_threshold.is_power_of_two() && sizes.small_threshold >= 128);
            assert!(sizes.small_threshold >= 8 * sizes.alignment, "each linked class needs a slot");
            assert!(sizes.arena_threshold > sizes.linked_threshold);
            assert!(sizes.linked_threshold < sizes.pool_size / 2);
            assert!(matches!(G::RULES.headers, HeaderRule::InArena), "pools of several units");
            assert!(matches!(G::RULES.retain, RetainRule::EachClass), "pools of several units");
            let largest = sizes.block_size_of(Self::CLASSES - 1);
            assert!(largest == sizes.arena_threshold, "the largest class fits the threshold");
            let units = largest.div_ceil(sizes.pool_size);
            assert!(units < Self::POOLS, "the first unit holds the headers");
        }
        assert!(
            matches!(G::RULES.retain, RetainRule::Unobservable) || Self::POOLS <= 64,
            "a word has a bit for each unit"
        );
        assert!(sizes.pool_size.is_power_of_two() && sizes.pool_size <= 1 << 30);
        let before = Self::BEFORE_FIRST_POOL + BlockStart::AsInCPython.unused_bytes::<G>();
        assert!(before <= u16::MAX as usize, "too many headers in an arena");
        let minimum = before + 2 * sizes.linked_threshold;
        assert!(sizes.pool_size >= minimum, "a pool must have two blocks");
        assert!(sizes.arena_size.is_power_of_two() && sizes.arena_size >= 2 * sizes.pool_size);
        assert!(Self::POOLS <= MAX_POOLS, "too many pools in an arena");
        assert!(sizes.address_bits <= usize::BITS);
        assert!(sizes.address_bits > sizes.arena_size.ilog2());
    };
}

/// Where the blocks of a pool begin, if the geometry stores its headers in the arena.
///
/// In all other geometries, the blocks begin after the header of their pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockStart {
    /// At the start of the pool.
    ///
    /// Blocks are naturally aligned: a 64-byte block is aligned to 64 bytes, a 48-byte block to 16.
    Aligned,
    /// At the same offset as in CPython, whose pools begin with a header of 48 bytes.
    ///
    /// This affects only linked blocks. Other blocks begin at the start of the pool.
    ///
    /// Many Python objects begin at the start of a 64-byte cache line if the first block of their
    /// pool begins at offset 48. Each object that the garbage collector tracks has a header of 16
    /// bytes in front of it. The object in the first block therefore begins at offset 48 + 16 = 64.
    /// If the block size is a multiple of 64, the objects in all other blocks of the pool begin at
    /// the start of a cache line as well.
    AsInCPython,
}

impl BlockStart {
    /// Returns the number of unused bytes before the first block.
    pub(crate) const fn unused_bytes<G: Geometry>(self) -> usize {
        match (G::RULES.headers, self) {
            (HeaderRule::InArena, Self::AsInCPython) => {
                POOL_OVERHEAD.next_multiple_of(G::SIZES.alignment)
            }
            _ => 0,
        }
    }

    /// Returns the offset of the first block in a pool. `is_first` is true for the arena's first
    /// pool.
    pub const fn offset<G: Geometry>(self, is_first: bool) -> usize {
        let before = if is_first { Shape::<G>::BEFORE_FIRST_POOL } else { Shape::<G>::BEFORE_POOL };
        before + self.unused_bytes::<G>()
    }
}
