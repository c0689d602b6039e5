//! The sizes of everything, as a type.
//!
//! | profile | classes | small to | pool | arena | CPython |
//! | --- | --- | --- | --- | --- | --- |
//! | [`Classes8To256`] | 8 bytes apart | 256 | 4 KiB | 256 KiB | 2.5 |
//! | [`Classes8To512`] | 8 bytes apart | 512 | 4 KiB | 256 KiB | 3.3 to 3.7.3 |
//! | [`GiveBackAll`]`<`[`Pools4K`]`>` | 16 bytes apart | 512 | 4 KiB | 256 KiB | 3.7.4 to 3.8 |
//! | [`Pools4K`] | 16 bytes apart | 512 | 4 KiB | 256 KiB | 3.9 |
//! | [`Pools16K`] | 16 bytes apart | 512 | 16 KiB | 1 MiB | 3.10 to 3.15 |
//! | [`Arenas2M`] | 16 bytes apart | 512 | 16 KiB | 2 MiB | 3.15 with huge pages |
//!
//! Source: `Objects/obmalloc.c` and `Include/internal/pycore_obmalloc.h` of those versions.

use core::{fmt::Debug, marker::PhantomData};

use raw_mem::ArenaSize;

use crate::pool::{CACHE_LINE, POOL_OVERHEAD, PoolHeader};

/// The most size classes that any geometry has.
pub(crate) const MOST_CLASSES: usize = 64;

/// The most pools that an arena of any geometry has.
pub(crate) const MOST_POOLS: usize = 256;

/// When a reallocation keeps its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReallocRule {
    /// CPython's: the block stays if the request fits it and needs more than three quarters of
    /// it. So a request for the very same size can move, in the three smallest classes.
    ThreeQuarters,
    /// As [`ThreeQuarters`](Self::ThreeQuarters), and a request of the block's own class never
    /// moves.
    WithinClass,
}

/// When a pool that becomes empty stays with its class, to be used again at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestRule {
    /// Where nothing can tell it from CPython's way, which is to give the pool to its arena and to
    /// take it back from there: one pool of the heap at a time, until anything else happens.
    Unseen,
    /// One pool of each class, until no other pool can be had or its arena could go; and the
    /// others stay idle with their class, until another class has no pool or their arena could go.
    EachClass,
}

/// Where the headers of pools are.
///
/// ```text
///  InPools    ├─┬──────────┼─┬──────────┼─┬──────────┼─┬──────────┤   a header before each
///             │0│ blocks   │1│ blocks   │2│ blocks   │3│ blocks   │   pool's blocks
///             ├─┴──────────┼─┴──────────┼─┴──────────┼─┴──────────┤
///
///  InArena    ├───────┬─┬──┼────────────┼────────────┼────────────┤   all of them before the
///             │0 1 2 3│t│  │ blocks     │ blocks     │ blocks     │   blocks of pool 0, followed by
///             ├───────┴─┴──┼────────────┼────────────┼────────────┤   the tag of the heap
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderRule {
    /// CPython's: each pool begins with its own.
    ///
    /// Pools are aligned to a power of two, so their headers meet in a few sets of a processor's
    /// cache, however large it is: with pools of 16 KiB, in one set of the first level.
    InPools,
    /// An arena begins with all of them. They share no set of the cache beyond their number, and one
    /// page has them all, or two. The heap's tag has a line of its own, so that threads that look whose a
    /// block is read nothing that the owner writes. The first block of each pool is aligned to the
    /// largest class, so that every block is aligned to what divides its size.
    InArena,
}

/// The sizes of arenas, pools and blocks, and the rules that differed between versions of CPython.
///
/// A profile that makes no sense does not compile:
///
/// ```compile_fail
/// # use obmalloc::{Geometry, Heap};
/// # use raw_mem::{Malloc, MmapArenas};
/// #[derive(Clone, Copy, Debug, Default)]
/// struct Uneven;
/// impl Geometry for Uneven {
///     const NAME: &'static str = "pools of three pages";
///     const ALIGNMENT: usize = 16;
///     const SMALL_THRESHOLD: usize = 512;
///     const POOL_SIZE: usize = 3 * 4096;
///     const ARENA_SIZE: usize = 1 << 20;
/// }
/// let heap = Heap::<_, _, Uneven>::new(MmapArenas::new(), Malloc);
/// ```
pub trait Geometry: Copy + Debug + Default + Send + Sync + 'static {
    /// What a report calls it.
    const NAME: &'static str;
    /// Bytes between two classes, and the alignment of every block. CPython: `ALIGNMENT`.
    const ALIGNMENT: usize;
    /// The largest request that a pool serves, in bytes. CPython: `SMALL_REQUEST_THRESHOLD`.
    const SMALL_THRESHOLD: usize;
    /// Bytes of a pool, and its alignment. CPython: `POOL_SIZE`.
    const POOL_SIZE: usize;
    /// Bytes of an arena, and its alignment. CPython: `ARENA_SIZE`.
    const ARENA_SIZE: usize;
    /// Bits of the addresses that can be ours; above are the system's and nobody's.
    const ADDRESS_BITS: u32 = if usize::BITS > 48 { 48 } else { usize::BITS };
    /// An arena that becomes empty stays if it is the last of the usable ones (CPython 3.9 and
    /// later), so that a program at the boundary does not map and unmap in turn.
    const KEEP_LAST_ARENA: bool = true;
    /// When a reallocation keeps its block.
    const REALLOC: ReallocRule = ReallocRule::ThreeQuarters;
    /// When an emptied pool stays where it is.
    const REST: RestRule = RestRule::Unseen;
    /// Where the headers of pools are.
    const HEADERS: HeaderRule = HeaderRule::InPools;
    /// Requests of 0 bytes are served by the smallest class; CPython sends them to the layer
    /// below.
    const ZERO_IN_POOLS: bool = false;
}

/// What follows from a [`Geometry`].
#[derive(Clone, Copy, Debug)]
pub struct Shape<G>(PhantomData<G>);

impl<G: Geometry> Shape<G> {
    /// The number of size classes.
    pub const CLASSES: usize = G::SMALL_THRESHOLD / G::ALIGNMENT;
    /// The number of pools in an arena.
    pub const POOLS: usize = G::ARENA_SIZE / G::POOL_SIZE;
    /// An arena's size, as its source is asked for it.
    pub const ARENA: ArenaSize = match (ArenaSize::new(G::ARENA_SIZE), Self::SENSIBLE) {
        (Some(size), ()) => size,
        (None, ()) => panic!("no source has arenas of this size"),
    };
    /// A class's number is a request's highest byte offset shifted by this.
    pub(crate) const SHIFT: u32 = G::ALIGNMENT.trailing_zeros();
    /// Offset of the heap's tag in an arena that begins with all headers.
    pub(crate) const TAG: usize =
        (Self::POOLS * size_of::<PoolHeader>()).next_multiple_of(CACHE_LINE);
    /// Bytes before the first block of an arena's first pool.
    pub const BEFORE_FIRST_POOL: usize = match G::HEADERS {
        HeaderRule::InPools => POOL_OVERHEAD,
        HeaderRule::InArena => {
            let headers_and_tag = Self::TAG + CACHE_LINE;
            headers_and_tag.next_multiple_of(G::SMALL_THRESHOLD.next_power_of_two())
        }
    };
    /// Bytes before the first block of any other pool.
    pub const BEFORE_POOL: usize = match G::HEADERS {
        HeaderRule::InPools => POOL_OVERHEAD,
        HeaderRule::InArena => 0,
    };

    const SENSIBLE: () = {
        assert!(G::ALIGNMENT.is_power_of_two() && G::ALIGNMENT >= size_of::<usize>());
        assert!(Self::BEFORE_FIRST_POOL.is_multiple_of(G::ALIGNMENT), "blocks must be aligned");
        assert!(G::SMALL_THRESHOLD > 0 && G::SMALL_THRESHOLD.is_multiple_of(G::ALIGNMENT));
        assert!(Self::CLASSES <= MOST_CLASSES, "too many size classes");
        assert!(G::POOL_SIZE.is_power_of_two() && G::POOL_SIZE <= 1 << 30);
        assert!(Self::BEFORE_FIRST_POOL <= u16::MAX as usize, "too many headers in an arena");
        let least = Self::BEFORE_FIRST_POOL + 2 * G::SMALL_THRESHOLD;
        assert!(G::POOL_SIZE >= least, "two blocks to a pool");
        assert!(G::ARENA_SIZE.is_power_of_two() && G::ARENA_SIZE >= 2 * G::POOL_SIZE);
        assert!(Self::POOLS <= MOST_POOLS, "too many pools in an arena");
        assert!(G::ADDRESS_BITS <= usize::BITS && G::ADDRESS_BITS > G::ARENA_SIZE.ilog2());
    };
}

/// 8-byte classes to 256 bytes in 4 KiB pools and 256 KiB arenas: CPython 2.5.
#[derive(Clone, Copy, Debug, Default)]
pub struct Classes8To256;

impl Geometry for Classes8To256 {
    const NAME: &'static str = "8-byte classes to 256 bytes";
    const ALIGNMENT: usize = 8;
    const SMALL_THRESHOLD: usize = 256;
    const POOL_SIZE: usize = 4 << 10;
    const ARENA_SIZE: usize = 256 << 10;
    const KEEP_LAST_ARENA: bool = false;
}

/// 8-byte classes to 512 bytes in 4 KiB pools and 256 KiB arenas: CPython 3.3 to 3.7.3.
#[derive(Clone, Copy, Debug, Default)]
pub struct Classes8To512;

impl Geometry for Classes8To512 {
    const NAME: &'static str = "8-byte classes to 512 bytes";
    const ALIGNMENT: usize = 8;
    const SMALL_THRESHOLD: usize = 512;
    const POOL_SIZE: usize = 4 << 10;
    const ARENA_SIZE: usize = 256 << 10;
    const KEEP_LAST_ARENA: bool = false;
}

/// 16-byte classes to 512 bytes in 4 KiB pools and 256 KiB arenas: CPython 3.9, and with
/// [`GiveBackAll`] 3.7.4 to 3.8.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pools4K;

impl Geometry for Pools4K {
    const NAME: &'static str = "4 KiB pools";
    const ALIGNMENT: usize = 16;
    const SMALL_THRESHOLD: usize = 512;
    const POOL_SIZE: usize = 4 << 10;
    const ARENA_SIZE: usize = 256 << 10;
}

/// 16-byte classes to 512 bytes in 16 KiB pools and 1 MiB arenas: CPython 3.10 to 3.15. The
/// default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pools16K;

impl Geometry for Pools16K {
    const NAME: &'static str = "16 KiB pools";
    const ALIGNMENT: usize = 16;
    const SMALL_THRESHOLD: usize = 512;
    const POOL_SIZE: usize = 16 << 10;
    const ARENA_SIZE: usize = 1 << 20;
}

/// As [`Pools16K`] with 2 MiB arenas: CPython 3.15 built with huge pages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arenas2M;

impl Geometry for Arenas2M {
    const NAME: &'static str = "2 MiB arenas";
    const ALIGNMENT: usize = 16;
    const SMALL_THRESHOLD: usize = 512;
    const POOL_SIZE: usize = 16 << 10;
    const ARENA_SIZE: usize = 2 << 20;
}

/// 4 classes in pools of 256 bytes and arenas of 1 KiB: small enough for a model or a test to
/// reach every transition in a few steps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tiny;

impl Geometry for Tiny {
    const NAME: &'static str = "tiny";
    const ALIGNMENT: usize = 16;
    const SMALL_THRESHOLD: usize = 64;
    const POOL_SIZE: usize = 256;
    const ARENA_SIZE: usize = 1 << 10;
}

/// A switch over a geometry: all of it, but for the one rule that the switch names.
macro_rules! switch {
    ($(#[$doc:meta])* $name:ident, $label:literal, $rule:ident: $of:ty = $value:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $name<G>(PhantomData<G>);

        impl<G: Geometry> Geometry for $name<G> {
            const NAME: &'static str = $label;
            switch!(@rules $rule);
            const $rule: $of = $value;
        }
    };
    (@sizes) => {
        const ALIGNMENT: usize = G::ALIGNMENT;
        const SMALL_THRESHOLD: usize = G::SMALL_THRESHOLD;
        const POOL_SIZE: usize = G::POOL_SIZE;
        const ARENA_SIZE: usize = G::ARENA_SIZE;
        const ADDRESS_BITS: u32 = G::ADDRESS_BITS;
    };
    (@rules KEEP_LAST_ARENA) => {
        switch!(@sizes);
        const HEADERS: HeaderRule = G::HEADERS;
        const REST: RestRule = G::REST;
        const REALLOC: ReallocRule = G::REALLOC;
        const ZERO_IN_POOLS: bool = G::ZERO_IN_POOLS;
    };
    (@rules REALLOC) => {
        switch!(@sizes);
        const HEADERS: HeaderRule = G::HEADERS;
        const REST: RestRule = G::REST;
        const KEEP_LAST_ARENA: bool = G::KEEP_LAST_ARENA;
        const ZERO_IN_POOLS: bool = G::ZERO_IN_POOLS;
    };
    (@rules ZERO_IN_POOLS) => {
        switch!(@sizes);
        const HEADERS: HeaderRule = G::HEADERS;
        const REST: RestRule = G::REST;
        const KEEP_LAST_ARENA: bool = G::KEEP_LAST_ARENA;
        const REALLOC: ReallocRule = G::REALLOC;
    };
    (@rules REST) => {
        switch!(@sizes);
        const HEADERS: HeaderRule = G::HEADERS;
        const KEEP_LAST_ARENA: bool = G::KEEP_LAST_ARENA;
        const REALLOC: ReallocRule = G::REALLOC;
        const ZERO_IN_POOLS: bool = G::ZERO_IN_POOLS;
    };
    (@rules HEADERS) => {
        switch!(@sizes);
        const REST: RestRule = G::REST;
        const KEEP_LAST_ARENA: bool = G::KEEP_LAST_ARENA;
        const REALLOC: ReallocRule = G::REALLOC;
        const ZERO_IN_POOLS: bool = G::ZERO_IN_POOLS;
    };
}

switch! {
    /// The geometry `G`, giving back every arena that becomes empty: CPython to 3.8.
    GiveBackAll, "every empty arena given back", KEEP_LAST_ARENA: bool = false
}

switch! {
    /// The geometry `G`, with reallocations that never move a block within its class.
    KeepInClass, "no move within a class", REALLOC: ReallocRule = ReallocRule::WithinClass
}

switch! {
    /// The geometry `G`, with requests of 0 bytes served by its smallest class.
    ZeroInPools, "zero bytes from pools", ZERO_IN_POOLS: bool = true
}

switch! {
    /// The geometry `G`, with emptied pools that stay with their class.
    RestEachClass, "emptied pools stay with their class", REST: RestRule = RestRule::EachClass
}

switch! {
    /// The geometry `G`, with the headers of all pools at the beginning of their arena.
    HeadersInArena, "headers in the arena", HEADERS: HeaderRule = HeaderRule::InArena
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_has_the_figures_of_its_version() {
        assert_eq!((Shape::<Classes8To256>::CLASSES, Shape::<Classes8To256>::POOLS), (32, 64));
        assert_eq!((Shape::<Classes8To512>::CLASSES, Shape::<Classes8To512>::POOLS), (64, 64));
        assert_eq!((Shape::<Pools4K>::CLASSES, Shape::<Pools4K>::POOLS), (32, 64));
        assert_eq!((Shape::<Pools16K>::CLASSES, Shape::<Pools16K>::POOLS), (32, 64));
        assert_eq!((Shape::<Arenas2M>::CLASSES, Shape::<Arenas2M>::POOLS), (32, 128));
    }

    #[test]
    fn a_switch_changes_its_rule_alone() {
        type Eager = GiveBackAll<KeepInClass<ZeroInPools<Pools4K>>>;
        const { assert!(!Eager::KEEP_LAST_ARENA && Eager::ZERO_IN_POOLS) };
        assert_eq!(Eager::REALLOC, ReallocRule::WithinClass);
        assert_eq!(Eager::POOL_SIZE, Pools4K::POOL_SIZE);
    }
}
