//! The sizes and rules of a heap, as constants of a type.
//!
//! | geometry | classes | small to | pool | arena | CPython |
//! | --- | --- | --- | --- | --- | --- |
//! | `Classes8To256` | 8 bytes apart | 256 | 4 KiB | 256 KiB | 2.5 |
//! | `Classes8To512` | 8 bytes apart | 512 | 4 KiB | 256 KiB | 3.3 to 3.7.3 |
//! | `GiveBackAll<Pools4K>` | 16 bytes apart | 512 | 4 KiB | 256 KiB | 3.7.4 to 3.8 |
//! | `Pools4K` | 16 bytes apart | 512 | 4 KiB | 256 KiB | 3.9 |
//! | `Pools16K` | 16 bytes apart | 512 | 16 KiB | 1 MiB | 3.10 to 3.15 |
//! | `Arenas2M` | 16 bytes apart | 512 | 16 KiB | 2 MiB | 3.15 with huge pages |
//! | `Native` | 16 bytes apart, then 8 for each doubling | 512 | 16 KiB | 1 MiB | our own rules |
//!
//! `Native` also serves requests of up to 480 KiB from its arenas.

#![forbid(unsafe_code)]

use core::fmt::Debug;

pub(crate) mod eras;
pub(crate) mod shape;
pub(crate) mod size_class;

pub(crate) const MAX_CLASSES: usize = 128;

pub(crate) const MAX_POOLS: usize = 256;

/// The sizes of arenas, pools and blocks, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The alignment of blocks and the step between size classes. CPython: `ALIGNMENT`.
    pub alignment: usize,
    /// The largest small request. CPython: `SMALL_REQUEST_THRESHOLD`.
    ///
    /// The size classes of small requests are `alignment` bytes apart.
    pub small_threshold: usize,
    /// The size of the largest *linked* block. While a linked block is free, it contains a link to
    /// another free block of its pool. A pool of linked blocks is one unit of `pool_size` bytes.
    ///
    /// It equals `small_threshold` in CPython's geometries, and may be twice as large in others.
    pub linked_threshold: usize,
    /// The largest request that an arena can serve. CPython serves only small requests from arenas.
    ///
    /// A block of up to `pool_size / 2` bytes shares its pool with other blocks of the same size
    /// class. A pool of blocks above `linked_threshold` can have several units. A pool of several
    /// such blocks takes up at most an eighth of an arena, unless it is a single unit. Above
    /// `small_threshold`, there are eight size classes for such blocks between each power of two
    /// and the next. The size of a block above `pool_size / 2` bytes is rounded up to a multiple of
    /// `pool_size`, and the block then fills a pool of its own.
    pub arena_threshold: usize,
    /// The size and alignment of a unit, which is a pool of linked blocks. CPython: `POOL_SIZE`.
    pub pool_size: usize,
    /// The size and alignment of an arena. CPython: `ARENA_SIZE`.
    pub arena_size: usize,
    /// The largest number of bits in the address of an arena.
    pub address_bits: u32,
}

const ADDRESS_BITS: u32 = if usize::BITS > 48 { 48 } else { usize::BITS };

impl Sizes {
    /// The sizes of CPython from 3.10.
    pub const CPYTHON: Self = Self {
        alignment: 16,
        small_threshold: 512,
        linked_threshold: 512,
        arena_threshold: 512,
        pool_size: 16 << 10,
        arena_size: 1 << 20,
        address_bits: ADDRESS_BITS,
    };

    /// The sizes of CPython 3.7.4 to 3.9, with pools of 4 KiB and arenas of 256 KiB.
    pub const CPYTHON_4K: Self =
        Self { pool_size: 4 << 10, arena_size: 256 << 10, ..Self::CPYTHON };
}

/// The binary logarithm of the number of classes between two powers of two.
const STEP_BITS: u32 = 3;

impl Sizes {
    /// The number of size classes of small requests.
    pub(crate) const fn small_classes(self) -> usize {
        self.small_threshold / self.alignment
    }

    /// The number of size classes whose free blocks are linked.
    pub(crate) const fn linked_classes(self) -> usize {
        if self.linked_threshold == self.small_threshold {
            return self.small_classes();
        }
        self.small_classes() + self.steps_to(self.linked_threshold)
    }

    /// The largest block, in bytes, that shares its pool with other blocks.
    pub(crate) const fn largest_shared(self) -> usize {
        self.pool_size / 2
    }

    /// Returns the index of the smallest class whose blocks consist of whole units.
    pub(crate) const fn first_span(self) -> usize {
        self.small_classes() + self.steps_to(self.largest_shared())
    }

    /// Returns the binary logarithm of the distance in bytes between the classes just above `last`.
    pub(crate) const fn shift_of_steps_above(self, last: usize) -> u32 {
        last.ilog2().saturating_sub(STEP_BITS)
    }

    /// Returns the number of classes between the small threshold and `last` bytes.
    const fn steps_to(self, last: usize) -> usize {
        // Between two powers of two, the bits after the highest set bit number the classes.
        let shift = self.shift_of_steps_above(last);
        let doublings = (last.ilog2() - self.small_threshold.ilog2()) as usize;
        (doublings << STEP_BITS) + ((last >> shift) & ((1 << STEP_BITS) - 1))
    }

    /// Returns the index of the smallest class whose blocks have more than `last` bytes.
    // We always inline this function. The sizes are constants of the geometry, so the compiler can
    // then compute most of the result in advance.
    #[inline(always)]
    pub(crate) const fn class_of(self, last: usize) -> usize {
        if last < self.small_threshold {
            last >> self.alignment.trailing_zeros()
        } else if last < self.linked_threshold {
            // There is only one doubling up to this size, so all steps are equal.
            let step = self.small_threshold.ilog2() - STEP_BITS;
            self.small_classes() + ((last - self.small_threshold) >> step)
        } else if last < self.largest_shared() {
            self.small_classes() + self.steps_to(last)
        } else {
            self.first_span() + last / self.pool_size
        }
    }

    /// Returns the size in bytes of the blocks of the class with the number `index`.
    pub(crate) const fn block_size_of(self, index: usize) -> usize {
        if index < self.small_classes() {
            return (index + 1) << self.alignment.trailing_zeros();
        }
        if index >= self.first_span() {
            return (index - self.first_span() + 1) * self.pool_size;
        }
        let nth = index - self.small_classes();
        let steps = (1 << STEP_BITS) + nth % (1 << STEP_BITS) + 1;
        let shift = self.small_threshold.ilog2() - STEP_BITS + (nth >> STEP_BITS) as u32;
        steps << shift
    }
}

/// The rules that differ between versions of CPython, or between CPython and our own heaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether the last arena with a free pool stays mapped when all of its pools become free.
    pub retain_last_arena: bool,
    /// Which empty pools a size class retains for its next request.
    pub retain: RetainRule,
    /// When a reallocation leaves the block in place.
    pub realloc: ReallocRule,
    /// Where the headers of the pools are stored.
    pub headers: HeaderRule,
    /// Whether requests of 0 bytes get a block. CPython passes them to the layer below.
    pub zero_in_pools: bool,
    /// The smallest request, in bytes, that [`Pymalloc`](crate::Pymalloc) serves with a span, which
    /// is a pool with a single block.
    ///
    /// `spans_from` must be greater than `pool_size / 2`, because blocks of at most `pool_size / 2`
    /// bytes share their pools with other blocks. The geometries that imitate CPython
    /// use [`usize::MAX`], so that no request gets a span.
    pub spans_from: usize,
}

impl Rules {
    /// The rules of CPython from 3.9.
    pub const CPYTHON: Self = Self {
        retain_last_arena: true,
        retain: RetainRule::Unobservable,
        realloc: ReallocRule::ThreeQuarters,
        headers: HeaderRule::InPools,
        zero_in_pools: false,
        spans_from: usize::MAX,
    };
}

/// When a reallocation leaves the block in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReallocRule {
    /// CPython's rule: the new size must fit, and exceed three quarters of the block's size.
    ///
    /// The requested size is not stored, so even a reallocation to the same size can move a small
    /// block.
    ThreeQuarters,
    /// Like `ThreeQuarters`, but a block also stays in place if the new size has the same class.
    WithinClass,
}

/// Which empty pools a size class *retains* for its next request. All other empty pools return to
/// their arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainRule {
    /// The heap retains at most one pool, and only if it still returns the same addresses as
    /// CPython.
    Unobservable,
    /// Each class can retain one pool until another class needs it.
    ///
    /// A class of [spans](crate::SizeClass::is_span), which are pools of one block, can retain
    /// several empty spans. However, many spans are used only once. The first span of a class that
    /// becomes empty after a sweep (a regular search for unused memory) therefore returns to its
    /// arena. If the class has recently retained spans, it can retain the first one, too.
    ///
    /// An arena in which no block is in use can stay mapped for two reasons: classes retain pools
    /// of the arena, or the heap retains the whole arena. The arena source decides how many such
    /// arenas may stay mapped. The heap calls the source's
    /// method [`retain`](raw_mem::ArenaSource::retain) in two cases:
    /// - The last block in use in an arena has been freed, and classes retain or want to retain
    ///   pools of the arena.
    /// - All pools of an arena are free, and the heap wants to retain the arena.
    ///
    /// A class that needs another pool prefers a free pool that it used before.
    EachClass,
}

/// Where the headers of the pools are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderRule {
    /// CPython's rule: each pool begins with its own header.
    ///
    /// All headers then share a few cache sets, because the low bits of their addresses are equal.
    InPools,
    /// Each arena begins with the headers of all its pools.
    ///
    /// The heap's tag shares no cache line with data that the owner writes, because other threads
    /// read the tag.
    ///
    /// Each block is aligned to the largest power of two that divides its size, but at most to
    /// `pool_size`. For example, a block of 64 bytes is aligned to 64 bytes, and a block of 48
    /// bytes to 16 bytes. With [`BlockStart::AsInCPython`](crate::BlockStart::AsInCPython), the
    /// alignment can be smaller.
    InArena,
}

/// The sizes and rules of a heap. If the sizes contradict each other, the program does not compile:
///
/// ```compile_fail
/// # use obmalloc::{Geometry, Heap, Sizes};
/// # use raw_mem::{Malloc, MmapArenas};
/// #[derive(Clone, Copy, Debug, Default)]
/// struct Uneven;
/// impl Geometry for Uneven {
///     const NAME: &'static str = "pools of three pages";
///     const SIZES: Sizes = Sizes { pool_size: 3 * 4096, ..Sizes::CPYTHON };
/// }
/// let heap = Heap::<_, _, Uneven>::with_geometry(MmapArenas::new(), Malloc);
/// ```
///
/// A pool must be smaller than 2 GiB, because its header stores offsets in 31 bits. A pool of
/// several blocks can be as large as an eighth of an arena. In the first example, this is 1 GiB. In
/// the second example, it is 2 GiB, so the program does not compile:
///
/// ```
/// # use obmalloc::{Geometry, HeaderRule, RetainRule, Rules, SizeClass, Sizes};
/// #[derive(Clone, Copy, Debug, Default)]
/// struct Arenas8G;
/// impl Geometry for Arenas8G {
///     const NAME: &'static str = "arenas of 8 GiB";
///     const SIZES: Sizes = Sizes {
///         alignment: 4 << 10,
///         small_threshold: 32 << 10,
///         linked_threshold: 32 << 10,
///         arena_threshold: 256 << 20,
///         pool_size: 1 << 30,
///         arena_size: 8 << 30,
///         ..Sizes::CPYTHON
///     };
///     const RULES: Rules =
///         Rules { headers: HeaderRule::InArena, retain: RetainRule::EachClass, ..Rules::CPYTHON };
/// }
/// assert_eq!(SizeClass::<Arenas8G>::of(256 << 20).map(SizeClass::units), Some(1));
/// ```
///
/// ```compile_fail,E0080
/// # use obmalloc::{Geometry, HeaderRule, RetainRule, Rules, SizeClass, Sizes};
/// #[derive(Clone, Copy, Debug, Default)]
/// struct Arenas16G;
/// impl Geometry for Arenas16G {
///     const NAME: &'static str = "arenas of 16 GiB";
///     const SIZES: Sizes = Sizes {
///         alignment: 4 << 10,
///         small_threshold: 32 << 10,
///         linked_threshold: 32 << 10,
///         arena_threshold: 256 << 20,
///         pool_size: 1 << 30,
///         arena_size: 16 << 30,
///         ..Sizes::CPYTHON
///     };
///     const RULES: Rules =
///         Rules { headers: HeaderRule::InArena, retain: RetainRule::EachClass, ..Rules::CPYTHON };
/// }
/// assert_eq!(SizeClass::<Arenas16G>::of(256 << 20).map(SizeClass::units), Some(2));
/// ```
pub trait Geometry: Copy + Debug + Default + Send + Sync + 'static {
    /// The name of the geometry in reports.
    const NAME: &'static str;
    /// The sizes of arenas, pools and blocks.
    const SIZES: Sizes;
    /// The rules of the heap.
    const RULES: Rules = Rules::CPYTHON;
}
