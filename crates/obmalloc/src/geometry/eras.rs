//! The geometries: one for each group of CPython versions, our own, and variants for tests.
//!
//! Source: `Objects/obmalloc.c` and `Include/internal/pycore_obmalloc.h` of the named versions.

#![forbid(unsafe_code)]

use core::marker::PhantomData;

use crate::geometry::{Geometry, HeaderRule, ReallocRule, RetainRule, Rules, Sizes};

/// The geometry of CPython 2.5: size classes 8 bytes apart, up to 256 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Classes8To256;

impl Geometry for Classes8To256 {
    const NAME: &'static str = "8-byte classes to 256 bytes";
    const SIZES: Sizes = Sizes {
        alignment: 8,
        small_threshold: 256,
        linked_threshold: 256,
        arena_threshold: 256,
        ..Sizes::CPYTHON_4K
    };
    const RULES: Rules = Rules { retain_last_arena: false, ..Rules::CPYTHON };
}

/// The geometry of CPython 3.3 to 3.7.3: size classes 8 bytes apart, up to 512 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Classes8To512;

impl Geometry for Classes8To512 {
    const NAME: &'static str = "8-byte classes to 512 bytes";
    const SIZES: Sizes = Sizes { alignment: 8, ..Sizes::CPYTHON_4K };
    const RULES: Rules = Rules { retain_last_arena: false, ..Rules::CPYTHON };
}

/// The geometry of CPython 3.9: size classes 16 bytes apart, pools of 4 KiB, arenas of 256 KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pools4K;

impl Geometry for Pools4K {
    const NAME: &'static str = "4 KiB pools";
    const SIZES: Sizes = Sizes::CPYTHON_4K;
}

/// The default geometry, which is that of CPython 3.10 to 3.15: 16 KiB pools and 1 MiB arenas.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pools16K;

impl Geometry for Pools16K {
    const NAME: &'static str = "16 KiB pools";
    const SIZES: Sizes = Sizes::CPYTHON;
}

/// The geometry of CPython 3.15 with huge pages: like [`Pools16K`], but with arenas of 2 MiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arenas2M;

impl Geometry for Arenas2M {
    const NAME: &'static str = "2 MiB arenas";
    const SIZES: Sizes = Sizes { arena_size: 2 << 20, ..Sizes::CPYTHON };
}

/// The geometry of our own allocators, whose addresses differ from those of CPython.
///
/// The largest request takes 30 of the 64 units of an arena, so an arena has room for two such
/// blocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Native;

impl Geometry for Native {
    const NAME: &'static str = "native";
    const SIZES: Sizes =
        Sizes { linked_threshold: 1024, arena_threshold: 480 << 10, ..Sizes::CPYTHON };
    const RULES: Rules = Rules {
        headers: HeaderRule::InArena,
        retain: RetainRule::EachClass,
        spans_from: 128 << 10,
        ..Rules::CPYTHON
    };
}

/// A geometry for tests. Its heaps reach every state after a few operations.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tiny;

impl Geometry for Tiny {
    const NAME: &'static str = "tiny";
    const SIZES: Sizes = Sizes {
        small_threshold: 64,
        linked_threshold: 64,
        arena_threshold: 64,
        pool_size: 256,
        arena_size: 1 << 10,
        ..Sizes::CPYTHON
    };
}

/// The geometry `G` without [`Rules::retain_last_arena`], as in CPython before 3.9.
///
/// `GiveBackAll<Pools4K>` is the geometry of CPython 3.7.4 to 3.8.
#[derive(Clone, Copy, Debug, Default)]
pub struct GiveBackAll<G>(PhantomData<G>);

impl<G: Geometry> Geometry for GiveBackAll<G> {
    const NAME: &'static str = "no free arena retained";
    const SIZES: Sizes = G::SIZES;
    const RULES: Rules = Rules { retain_last_arena: false, ..G::RULES };
}

/// The geometry `G` with [`ReallocRule::WithinClass`], so fewer reallocations move a block.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepInClass<G>(PhantomData<G>);

impl<G: Geometry> Geometry for KeepInClass<G> {
    const NAME: &'static str = "no move within a class";
    const SIZES: Sizes = G::SIZES;
    const RULES: Rules = Rules { realloc: ReallocRule::WithinClass, ..G::RULES };
}

/// The geometry `G` with [`Rules::zero_in_pools`], so requests of 0 bytes get a block.
#[derive(Clone, Copy, Debug, Default)]
pub struct ZeroInPools<G>(PhantomData<G>);

impl<G: Geometry> Geometry for ZeroInPools<G> {
    const NAME: &'static str = "zero bytes from pools";
    const SIZES: Sizes = G::SIZES;
    const RULES: Rules = Rules { zero_in_pools: true, ..G::RULES };
}

/// The geometry `G` with [`RetainRule::EachClass`], so each class may retain an empty pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetainEachClass<G>(PhantomData<G>);

impl<G: Geometry> Geometry for RetainEachClass<G> {
    const NAME: &'static str = "each class retains a pool";
    const SIZES: Sizes = G::SIZES;
    const RULES: Rules = Rules { retain: RetainRule::EachClass, ..G::RULES };
}

/// The geometry `G` with [`HeaderRule::InArena`], so the headers precede all blocks of an arena.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadersInArena<G>(PhantomData<G>);

impl<G: Geometry> Geometry for HeadersInArena<G> {
    const NAME: &'static str = "headers in the arena";
    const SIZES: Sizes = G::SIZES;
    const RULES: Rules = Rules { headers: HeaderRule::InArena, ..G::RULES };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::shape::Shape;

    #[test]
    fn every_era_has_the_figures_of_its_version() {
        assert_eq!((Shape::<Classes8To256>::CLASSES, Shape::<Classes8To256>::POOLS), (32, 64));
        assert_eq!((Shape::<Classes8To512>::CLASSES, Shape::<Classes8To512>::POOLS), (64, 64));
        assert_eq!((Shape::<Pools4K>::CLASSES, Shape::<Pools4K>::POOLS), (32, 64));
        assert_eq!((Shape::<Pools16K>::CLASSES, Shape::<Pools16K>::POOLS), (32, 64));
        assert_eq!((Shape::<Arenas2M>::CLASSES, Shape::<Arenas2M>::POOLS), (32, 128));
    }

    #[test]
    fn a_variant_changes_one_rule_only() {
        type Eager = GiveBackAll<KeepInClass<ZeroInPools<Pools4K>>>;
        assert_eq!(Eager::SIZES, Pools4K::SIZES);
        let expected = Rules {
            retain_last_arena: false,
            realloc: ReallocRule::WithinClass,
            zero_in_pools: true,
            ..Pools4K::RULES
        };
        assert_eq!(Eager::RULES, expected);
    }

    #[test]
    fn our_own_geometry_has_the_small_sizes_of_cpython() {
        let small = Sizes { linked_threshold: 512, arena_threshold: 512, ..Native::SIZES };
        assert_eq!((small, Shape::<Native>::SMALL_CLASSES), (Pools16K::SIZES, 32));
        assert_eq!(Shape::<Native>::CLASSES, 32 + 4 * 8 + 30);
        let small = Rules { spans_from: usize::MAX, ..Native::RULES };
        assert_eq!(small, HeadersInArena::<RetainEachClass<Pools16K>>::RULES);
    }
}
