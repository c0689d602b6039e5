//! A heap whose layers a test can observe and make fail, and the list of profiles.

#![allow(dead_code, unused_macros, unused_imports)]

use std::{ptr::NonNull, time::Duration};

use obmalloc::{Access, Geometry, GilHeld, Heap, KnownArenas, Pymalloc, ReallocRule, Sizes, Stats};
use raw_mem::{Malloc, MmapArenas, RetainingArenas};
use testkit::{
    drive::{Driver, Shadowed},
    failing::{FailingAlloc, FailingArenas, Faults, LiveBlocks, Plan},
    op::{Op, Outcome},
    place::{ArenaLog, Spot},
    reference::{Figures, Realloc, Rules},
    shadow::Shadow,
};

pub(crate) type Lower = FailingAlloc<Malloc>;
pub(crate) type Arenas<G> = KnownArenas<FailingArenas<RetainingArenas<MmapArenas>>, Lower, G>;
pub(crate) type TestHeap<G> = Heap<Arenas<G>, Lower, G>;
pub(crate) type TestPymalloc<G> = Pymalloc<GilHeld<TestHeap<G>>, Lower>;

pub(crate) fn rules<G: Geometry>() -> Rules {
    Rules {
        alignment: G::SIZES.alignment,
        threshold: G::SIZES.small_threshold,
        pool_size: G::SIZES.pool_size,
        arena_size: G::SIZES.arena_size,
        retain_last_arena: G::RULES.retain_last_arena,
        realloc: match G::RULES.realloc {
            ReallocRule::ThreeQuarters => Realloc::ThreeQuarters,
            ReallocRule::WithinClass => Realloc::WithinClass,
        },
        zero_in_pools: G::RULES.zero_in_pools,
    }
}

pub(crate) struct Rig<G: Geometry> {
    pub(crate) driver: Driver<Shadowed<TestPymalloc<G>>>,
    pub(crate) arenas: ArenaLog,
    pub(crate) source: Faults,
    pub(crate) lower: Faults,
    pub(crate) below: LiveBlocks,
}

impl<G: Geometry> Rig<G> {
    pub(crate) fn new() -> Self {
        Self::over(Duration::ZERO)
    }

    pub(crate) fn that_retains_arenas() -> Self {
        Self::over(Duration::from_secs(3600))
    }

    fn over(decay: Duration) -> Self {
        let (arenas, source, lower) = (ArenaLog::default(), Faults::default(), Faults::default());
        let alloc = FailingAlloc::new(Malloc, lower.clone());
        let below = alloc.live();
        let mapped = FailingArenas::new(
            RetainingArenas::with_decay(MmapArenas::new(), decay),
            source.clone(),
            arenas.clone(),
        );
        let heap =
            Heap::with_geometry(KnownArenas::with_geometry(mapped, alloc.clone()), alloc.clone());
        // SAFETY: one thread uses the heap, and neither layer below it calls back.
        let heap = unsafe { GilHeld::new(heap) };
        // SAFETY: malloc never returns memory of the heap's arenas.
        let pymalloc = unsafe { Pymalloc::new(heap, alloc) };
        let driver = Driver::new(Shadowed::new(pymalloc, G::SIZES.alignment));
        Self { driver, arenas, source, lower, below }
    }

    pub(crate) fn step(&mut self, op: Op) -> Outcome<NonNull<u8>> {
        self.driver.step(op)
    }

    pub(crate) fn spot(&self, block: NonNull<u8>) -> Option<Spot> {
        self.arenas.spot(block.addr().get(), G::SIZES.arena_size, G::SIZES.pool_size)
    }

    pub(crate) fn heap(&self) -> &impl Access {
        self.driver.subject().alloc().access()
    }

    pub(crate) fn check(&self) {
        self.heap().check_invariants();
    }

    pub(crate) fn shadow(&self) -> &Shadow {
        self.driver.subject().shadow()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.driver.subject().alloc().stats()
    }

    pub(crate) fn figures(&self) -> Figures {
        Figures::parse(&self.stats().to_string())
    }

    pub(crate) fn retained(&self) -> usize {
        usize::from(G::RULES.retain_last_arena && self.arenas.ever() > 0)
    }
}

/// The geometry with the smallest pools that can hold all headers in the first pool of an arena.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Small;

impl Geometry for Small {
    const NAME: &'static str = "small";
    const SIZES: Sizes = Sizes { pool_size: 512, arena_size: 2 << 10, ..obmalloc::Tiny::SIZES };
}

pub(crate) fn arenas_in<G: Geometry>(bytes: usize) -> usize {
    (bytes / G::SIZES.arena_size).clamp(2, 100)
}

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

/// Runs the named tests for each geometry that behaves like CPython.
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
