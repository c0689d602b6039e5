//! The sizes and rules of a heap, as a type.
//!
//! | geometry | classes | small to | pool | arena | CPython |
//! | --- | --- | --- | --- | --- | --- |
//! | [`Classes8To256`] | 8 bytes apart | 256 | 4 KiB | 256 KiB | 2.5 |
//! | [`Classes8To512`] | 8 bytes apart | 512 | 4 KiB | 256 KiB | 3.3 to 3.7.3 |
//! | [`GiveBackAll`]`<`[`Pools4K`]`>` | 16 bytes apart | 512 | 4 KiB | 256 KiB | 3.7.4 to 3.8 |
//! | [`Pools4K`] | 16 bytes apart | 512 | 4 KiB | 256 KiB | 3.9 |
//! | [`Pools16K`] | 16 bytes apart | 512 | 16 KiB | 1 MiB | 3.10 to 3.15 |
//! | [`Arenas2M`] | 16 bytes apart | 512 | 16 KiB | 2 MiB | 3.15 with huge pages |
//! | [`Native`] | 16 bytes apart | 512 | 16 KiB | 1 MiB | not CPython's: our own rules |
//!
//! Source: `Objects/obmalloc.c` and `Include/internal/pycore_obmalloc.h` of those versions.
//!
//! [`Classes8To256`]: eras::Classes8To256
//! [`Classes8To512`]: eras::Classes8To512
//! [`GiveBackAll`]: eras::GiveBackAll
//! [`Pools4K`]: eras::Pools4K
//! [`Pools16K`]: eras::Pools16K
//! [`Arenas2M`]: eras::Arenas2M
//! [`Native`]: eras::Native

#![forbid(unsafe_code)]

use core::fmt::Debug;

pub(crate) mod eras;
pub(crate) mod shape;
pub(crate) mod size_class;

/// The largest number of size classes in any geometry.
pub(crate) const MAX_CLASSES: usize = 64;

/// The largest number of pools in an arena of any geometry.
pub(crate) const MAX_POOLS: usize = 256;

/// The sizes of arenas, pools and blocks, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The distance between two size classes, and the alignment of every block. CPython:
    /// `ALIGNMENT`.
    pub alignment: usize,
    /// The largest request that a pool serves. CPython: `SMALL_REQUEST_THRESHOLD`.
    pub small_threshold: usize,
    /// The size of a pool, and its alignment. CPython: `POOL_SIZE`.
    pub pool_size: usize,
    /// The size of an arena, and its alignment. CPython: `ARENA_SIZE`.
    pub arena_size: usize,
    /// The number of address bits that arenas can have. Higher addresses belong to the system.
    pub address_bits: u32,
}

/// The number of address bits that a program can use.
const ADDRESS_BITS: u32 = if usize::BITS > 48 { 48 } else { usize::BITS };

impl Sizes {
    /// CPython from 3.10: classes 16 bytes apart up to 512 bytes, pools of 16 KiB, arenas of 1 MiB.
    pub const CPYTHON: Self = Self {
        alignment: 16,
        small_threshold: 512,
        pool_size: 16 << 10,
        arena_size: 1 << 20,
        address_bits: ADDRESS_BITS,
    };

    /// CPython before 3.10: as [`CPYTHON`](Self::CPYTHON) with pools of 4 KiB and arenas of
    /// 256 KiB.
    pub const CPYTHON_4K: Self =
        Self { pool_size: 4 << 10, arena_size: 256 << 10, ..Self::CPYTHON };
}

/// The rules of a heap: what differed between versions of CPython, and what we do differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Retain an arena that becomes free if it is the last of the usable ones (CPython from 3.9), so
    /// that a program at the boundary does not map and unmap it in turn.
    pub retain_last_arena: bool,
    /// Which emptied pools are retained by their class.
    pub retain: RetainRule,
    /// When a reallocation leaves its block in place.
    pub realloc: ReallocRule,
    /// Where the headers of pools are.
    pub headers: HeaderRule,
    /// Serve requests of 0 bytes from the smallest class. CPython passes them to the layer below.
    pub zero_in_pools: bool,
}

impl Rules {
    /// The rules of CPython from 3.9.
    pub const CPYTHON: Self = Self {
        retain_last_arena: true,
        retain: RetainRule::Unobservable,
        realloc: ReallocRule::ThreeQuarters,
        headers: HeaderRule::InPools,
        zero_in_pools: false,
    };
}

/// When a reallocation leaves its block in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReallocRule {
    /// CPython's rule: the request must fit the block and need more than three quarters of it. In
    /// the three smallest classes, a request for the current size can therefore move the block.
    ThreeQuarters,
    /// As [`ThreeQuarters`](Self::ThreeQuarters), but a request of the block's own class never moves
    /// it.
    WithinClass,
}

/// When a pool that becomes empty is retained by its class, for the next request of that class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainRule {
    /// One pool of the heap at a time, and only where the heap behaves exactly as if it had been
    /// given to its arena and taken back, which is CPython's way.
    Unobservable,
    /// One pool of each class, until no other pool is free or its arena could be unmapped. Free
    /// arenas are retained as well, as many as their source allows
    /// ([`ArenaSource::retain`](raw_mem::ArenaSource::retain)).
    EachClass,
}

/// Where the headers of pools are.
///
/// ```text
///  InPools    ├─┬──────────┼─┬──────────┼─┬──────────┼─┬──────────┤   a header before the blocks
///             │0│ blocks   │1│ blocks   │2│ blocks   │3│ blocks   │   of each pool
///             ├─┴──────────┼─┴──────────┼─┴──────────┼─┴──────────┤
///
///  InArena    ├───────┬─┬──┼────────────┼────────────┼────────────┤   all headers, then the tag of
///             │0 1 2 3│t│  │ blocks     │ blocks     │ blocks     │   the heap, then the blocks of
///             ├───────┴─┴──┼────────────┼────────────┼────────────┤   pool 0
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderRule {
    /// CPython's rule: each pool begins with its header.
    ///
    /// Pools are aligned to a power of two, so their headers compete for a few sets of a processor's
    /// cache, however large the cache is. With pools of 16 KiB they share one set of the first level.
    InPools,
    /// An arena begins with the headers of all its pools, which fill adjacent cache lines of one or
    /// two pages. The tag of the heap has a cache line to itself, so that threads which look up the
    /// owner of a block read nothing that the owner writes. The first block of each pool is aligned
    /// to the largest class, so every block is aligned to each power of two that divides its size.
    InArena,
}

/// The sizes and rules of a heap.
///
/// A geometry that contradicts itself does not compile:
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
pub trait Geometry: Copy + Debug + Default + Send + Sync + 'static {
    /// The name of the geometry in reports.
    const NAME: &'static str;
    /// The sizes of arenas, pools and blocks.
    const SIZES: Sizes;
    /// The rules of the heap.
    const RULES: Rules = Rules::CPYTHON;
}
