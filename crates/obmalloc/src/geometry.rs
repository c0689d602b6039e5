//! The geometry of a heap: its sizes and rules, expressed as a type.
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
//! Source of CPython's sizes and rules: `Objects/obmalloc.c` and
//! `Include/internal/pycore_obmalloc.h` of the versions in the table.
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

/// The largest number of size classes that a geometry may have.
pub(crate) const MAX_CLASSES: usize = 64;

/// The largest number of pools that an arena of any geometry may have.
pub(crate) const MAX_POOLS: usize = 256;

/// The sizes of arenas, pools and blocks, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The difference between the block sizes of two adjacent size classes. It is also the
    /// alignment of every block. CPython: `ALIGNMENT`.
    pub alignment: usize,
    /// The largest request that is allocated from a pool, in bytes. CPython:
    /// `SMALL_REQUEST_THRESHOLD`.
    pub small_threshold: usize,
    /// The size of a pool, which is also its alignment. CPython: `POOL_SIZE`.
    pub pool_size: usize,
    /// The size of an arena, which is also its alignment. CPython: `ARENA_SIZE`.
    pub arena_size: usize,
    /// The largest number of bits that the address of an arena can have. Addresses with more bits
    /// belong to the system, so no arena lies at such an address.
    pub address_bits: u32,
}

/// The number of bits in the addresses that a program can use: 48 on 64-bit platforms.
const ADDRESS_BITS: u32 = if usize::BITS > 48 { 48 } else { usize::BITS };

impl Sizes {
    /// The sizes of CPython from 3.10: size classes 16 bytes apart up to 512 bytes, pools of 16
    /// KiB, and arenas of 1 MiB.
    pub const CPYTHON: Self = Self {
        alignment: 16,
        small_threshold: 512,
        pool_size: 16 << 10,
        arena_size: 1 << 20,
        address_bits: ADDRESS_BITS,
    };

    /// The sizes of CPython before 3.10: like [`CPYTHON`](Self::CPYTHON), but with pools of 4 KiB
    /// and arenas of 256 KiB.
    pub const CPYTHON_4K: Self =
        Self { pool_size: 4 << 10, arena_size: 256 << 10, ..Self::CPYTHON };
}

/// The rules of a heap. Each field describes a rule that differs between versions of CPython, or
/// between CPython and our own heaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether the heap retains an arena whose pools all become free, if the arena is the last one
    /// in the list of arenas with a free pool (CPython from 3.9). Without this rule, a program
    /// whose need for memory repeatedly rises and falls by one arena would map and unmap an arena
    /// each time.
    pub retain_last_arena: bool,
    /// Which pools stay with their size class when they become empty.
    pub retain: RetainRule,
    /// When a reallocation leaves the block in place instead of moving it to another one.
    pub realloc: ReallocRule,
    /// Where the headers of the pools are stored.
    pub headers: HeaderRule,
    /// Whether requests of 0 bytes are allocated from the smallest size class. CPython forwards
    /// such requests to the layer below.
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

/// When a reallocation leaves the block in place instead of moving it to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReallocRule {
    /// CPython's rule: a block stays in place if the new size fits into the block and is more than
    /// three quarters of the block's size. The requested size is not stored. In the three smallest
    /// classes, it can be at most three quarters of the block's size, and then even a reallocation
    /// to the same size moves the block.
    ThreeQuarters,
    /// Like [`ThreeQuarters`](Self::ThreeQuarters), but a block also stays in place if the new size
    /// belongs to the size class of the block.
    WithinClass,
}

/// The rule that decides which pools are retained when they become empty. A retained pool stays
/// with its size class, which uses it for the next request. All other empty pools go back to their
/// arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainRule {
    /// The heap retains at most one pool at a time, and only if this cannot be observed from
    /// outside. It returns the same addresses as CPython, which returns the pool to its arena and
    /// later takes the same pool again.
    Unobservable,
    /// Each class may retain one pool. The retention ends when another class needs a pool and no
    /// other pool is free, or when the arena of the retained pool could be unmapped. The heap also
    /// retains as many free arenas as its source allows
    /// ([`ArenaSource::retain`](raw_mem::ArenaSource::retain)).
    EachClass,
}

/// Where the headers of the pools are stored.
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
    /// CPython's rule: each pool begins with its own header.
    ///
    /// Pools are aligned to their size, which is a power of two, so the addresses of all headers
    /// have the same low bits. A processor selects the set of its cache by the low bits of an
    /// address. All headers therefore compete for a few sets, no matter how large the cache is.
    /// With pools of 16 KiB, they share a single set of the first-level cache.
    InPools,
    /// Each arena begins with the headers of all its pools, which fill adjacent cache lines of one
    /// or two pages. The tag of the heap, from which a thread finds the owner of a block, follows
    /// the headers in a separate cache line. A thread that looks up the owner reads only the tag,
    /// so it never reads a cache line to which the owner writes.
    ///
    /// The first block of each pool is aligned to the size of the largest class. Every block is
    /// therefore aligned to each power of two that divides the block's size.
    InArena,
}

/// A type that describes the sizes and rules of a heap.
///
/// A geometry whose sizes contradict each other does not compile:
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
    /// The name of the geometry, which reports show.
    const NAME: &'static str;
    /// The sizes of arenas, pools and blocks.
    const SIZES: Sizes;
    /// The rules of the heap.
    const RULES: Rules = Rules::CPYTHON;
}
