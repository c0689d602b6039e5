//! A heap with everything around it that a test wants to see or to break, and every profile.

#![allow(dead_code, unused_macros, unused_imports)]

use std::{ptr::NonNull, time::Duration};

use obmalloc::{Access, Geometry, GilHeld, Heap, KnownArenas, Pymalloc, ReallocRule, Sizes, Stats};
use raw_mem::{Malloc, MmapArenas, RetainingArenas};
use testkit::{
    drive::Driver,
    failing::{FailingAlloc, FailingArenas, Faults, LiveBlocks, Plan},
    op::{Op, Outcome},
    place::{ArenaLog, Spot},
    reference::{Figures, Keep, Rules, Zero},
};

/// The layer below: malloc, which fails on demand.
pub(crate) type Lower = FailingAlloc<Malloc>;
/// Arenas, remembered in a map, which fail on demand. The source below may have the heap keep some.
pub(crate) type Arenas<G> = KnownArenas<FailingArenas<RetainingArenas<MmapArenas>>, Lower, G>;
/// The heap under test.
pub(crate) type TestHeap<G> = Heap<Arenas<G>, Lower, G>;
/// The heap under test with the layer below it.
pub(crate) type TestPymalloc<G> = Pymalloc<GilHeld<TestHeap<G>>, Lower>;

/// The rules of `G`, as numbers.
pub(crate) fn rules<G: Geometry>() -> Rules {
    Rules {
        alignment: G::SIZES.alignment,
        threshold: G::SIZES.small_threshold,
        pool_size: G::SIZES.pool_size,
        arena_size: G::SIZES.arena_size,
        keep_last: G::RULES.retain_last_arena,
        keep: match G::RULES.realloc {
            ReallocRule::ThreeQuarters => Keep::AboveThreeQuarters,
            ReallocRule::WithinClass => Keep::InClass,
        },
        zero: if G::RULES.zero_in_pools { Zero::SmallestClass } else { Zero::Below },
    }
}

/// A heap of geometry `G` under a driver, with a shadow.
pub(crate) struct Rig<G: Geometry> {
    pub(crate) driver: Driver<TestPymalloc<G>>,
    /// The arenas that it has.
    pub(crate) arenas: ArenaLog,
    /// Whether arenas are to be had.
    pub(crate) source: Faults,
    /// Whether the layer below has memory.
    pub(crate) lower: Faults,
    /// What it has of the layer below.
    pub(crate) below: LiveBlocks,
}

impl<G: Geometry> Rig<G> {
    pub(crate) fn new() -> Self {
        Self::over(Duration::ZERO)
    }

    /// A rig whose source would have the heap keep arenas.
    pub(crate) fn that_keeps_arenas() -> Self {
        Self::over(Duration::from_secs(3600))
    }

    fn over(patience: Duration) -> Self {
        let (arenas, source, lower) = (ArenaLog::default(), Faults::default(), Faults::default());
        let alloc = FailingAlloc::new(Malloc, lower.clone());
        let below = alloc.live();
        let mapped = FailingArenas::new(
            RetainingArenas::with_decay(MmapArenas::new(), patience),
            source.clone(),
            arenas.clone(),
        );
        let heap =
            Heap::with_geometry(KnownArenas::with_geometry(mapped, alloc.clone()), alloc.clone());
        // SAFETY: only one thread uses the heap, and neither layer below it calls back.
        let heap = unsafe { GilHeld::new(heap) };
        // SAFETY: malloc does not serve memory of the heap's arenas.
        let pymalloc = unsafe { Pymalloc::new(heap, alloc) };
        Self { driver: Driver::new(pymalloc, G::SIZES.alignment), arenas, source, lower, below }
    }

    /// Plays one operation.
    pub(crate) fn step(&mut self, op: Op) -> Outcome<NonNull<u8>> {
        self.driver.step(op)
    }

    /// Where a block lies; `None` in the layer below.
    pub(crate) fn spot(&self, block: NonNull<u8>) -> Option<Spot> {
        self.arenas.spot(block.addr().get(), G::SIZES.arena_size, G::SIZES.pool_size)
    }

    /// Returns the heap under the allocator.
    pub(crate) fn heap(&self) -> &impl Access {
        self.driver.alloc().access()
    }

    /// Asserts every rule of the crate's page.
    pub(crate) fn check(&self) {
        self.heap().check_invariants();
    }

    pub(crate) fn stats(&self) -> Stats {
        self.driver.alloc().stats()
    }

    /// The figures, by way of the text.
    pub(crate) fn figures(&self) -> Figures {
        Figures::parse(&self.stats().to_string())
    }

    /// Whether an arena remains mapped when nothing is live, and arenas were had.
    pub(crate) fn kept(&self) -> usize {
        usize::from(G::RULES.retain_last_arena && self.arenas.ever() > 0)
    }
}

/// The smallest pools that leave the first of an arena room for the headers of all of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Small;

impl Geometry for Small {
    const NAME: &'static str = "small";
    const SIZES: Sizes = Sizes { pool_size: 512, arena_size: 2 << 10, ..obmalloc::Tiny::SIZES };
}

/// How many arenas of `G` make up about `bytes`: at least two, at most a hundred.
pub(crate) fn arenas_in<G: Geometry>(bytes: usize) -> usize {
    (bytes / G::SIZES.arena_size).clamp(2, 100)
}

/// The tests named, once for each profile.
macro_rules! for_every_profile {
    ($($test:ident),+ $(,)?) => {
        for_every_shape_of_cpython!($($test),+);
        profile!(
            pools_16k_rest_each_class: obmalloc::RetainEachClass<obmalloc::Pools16K> => $($test)+
        );
        profile!(
            pools_16k_headers_in_arena_rest_each_class:
            obmalloc::Native => $($test)+
        );
        profile!(
            small_headers_in_arena:
            obmalloc::HeadersInArena<crate::common::Small> => $($test)+
        );
        profile!(tiny_rest_each_class: obmalloc::RetainEachClass<obmalloc::Tiny> => $($test)+);
        profile!(
            tiny_give_back_all_rest_each_class:
            obmalloc::RetainEachClass<obmalloc::GiveBackAll<obmalloc::Tiny>> => $($test)+
        );
    };
}

/// The tests named, once for each profile whose pools and arenas move as CPython's do.
macro_rules! for_every_shape_of_cpython {
    ($($test:ident),+ $(,)?) => {
        profile!(classes_8_to_256: obmalloc::Classes8To256 => $($test)+);
        profile!(classes_8_to_512: obmalloc::Classes8To512 => $($test)+);
        profile!(pools_4k_give_back_all: obmalloc::GiveBackAll<obmalloc::Pools4K> => $($test)+);
        profile!(pools_4k: obmalloc::Pools4K => $($test)+);
        profile!(pools_16k: obmalloc::Pools16K => $($test)+);
        profile!(arenas_2m: obmalloc::Arenas2M => $($test)+);
        profile!(tiny: obmalloc::Tiny => $($test)+);
        profile!(tiny_give_back_all: obmalloc::GiveBackAll<obmalloc::Tiny> => $($test)+);
        profile!(pools_16k_keep_in_class: obmalloc::KeepInClass<obmalloc::Pools16K> => $($test)+);
        profile!(pools_16k_zero_in_pools: obmalloc::ZeroInPools<obmalloc::Pools16K> => $($test)+);
        profile!(
            tiny_keep_in_class_zero_in_pools:
            obmalloc::KeepInClass<obmalloc::ZeroInPools<obmalloc::Tiny>> => $($test)+
        );
    };
}

macro_rules! profile {
    ($profile:ident: $geometry:ty => $($test:ident)+) => {
        mod $profile {
            $(
                #[test]
                fn $test() {
                    super::$test::<$geometry>();
                }
            )+
        }
    };
}
