//! The choices of memory layers from which objects are allocated. Each choice is a type.
//!
//! ```text
//!                 caches off             caches on
//!   pools off     MallocAlone            CachesOverMalloc
//!   pools on      Pools                  CachesOverPools
//! ```
//!
//! The type is a parameter of every object, so the compiler removes the code of a layer that is
//! switched off.

use std::{fmt::Debug, marker::PhantomData};

use object_cache::{
    Cache, CacheGroup, CacheStats, Cleared, FreeList, RcBox, RetryAfterClear,
    cpython::{Kind, TupleLists, Version},
};
use obmalloc::{GilHeld, Heap, KnownArenas, Pools16K, Pymalloc};
use raw_mem::{Malloc, MemAlloc, MmapArenas};

use crate::{
    run::Head,
    value::{Dict, List, Value},
};

/// The version of CPython whose caches the runtime imitates.
pub(crate) const VERSION: Version = Version::V3_14;

type Arenas = KnownArenas<MmapArenas, Malloc, Pools16K>;

/// Layer 2 (pools) on top of layer 1 (malloc), for one thread.
pub type Pool = Pymalloc<GilHeld<Heap<Arenas, Malloc, Pools16K>>, Malloc>;

/// The free lists of tuples.
pub(crate) type Tuples<L> =
    TupleLists<Head, Value<L>, <L as Layers>::Below, { VERSION.longest_tuple() }>;

/// A choice of memory layers.
pub trait Layers: Copy + Debug + Default + 'static {
    /// The allocator below the caches.
    type Below: MemAlloc + Copy + Debug + 'static;

    /// The name of the choice in tables.
    const NAME: &'static str;

    /// True if free objects are cached and small ints are immortal.
    const CACHED: bool;

    /// Returns the calling thread's memory.
    fn store() -> &'static Store<Self>;
}

/// The memory of one thread: the layers below the caches, and a cache for each type with CPython's
/// bounds.
#[derive(Debug)]
pub struct Store<L: Layers> {
    /// The allocator below the caches.
    pub below: L::Below,
    pub(crate) ints: FreeList<RcBox<i64>, L::Below>,
    pub(crate) floats: FreeList<RcBox<f64>, L::Below>,
    pub(crate) lists: FreeList<RcBox<List<L>>, L::Below>,
    pub(crate) dicts: FreeList<RcBox<Dict<L>>, L::Below>,
    pub(crate) tuples: Tuples<L>,
}

impl<L: Layers> Store<L> {
    fn new(below: L::Below) -> Self {
        let bound = |kind| VERSION.bound(kind).expect("this version of CPython caches it");
        Self {
            below,
            ints: FreeList::new(bound(Kind::Int), below),
            floats: FreeList::new(bound(Kind::Float), below),
            lists: FreeList::new(bound(Kind::List), below),
            dicts: FreeList::new(bound(Kind::Dict), below),
            tuples: TupleLists::new(bound(Kind::Tuple), below),
        }
    }

    /// Returns the caches together with their names.
    pub fn caches(&self) -> [(&'static str, &dyn Cache); 5] {
        [
            ("Dict", &self.dicts),
            ("Float", &self.floats),
            ("Int", &self.ints),
            ("List", &self.lists),
            ("Tuple", &self.tuples),
        ]
    }
}

/// All caches of the calling thread. They are cleared when memory is exhausted.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllCaches<L>(PhantomData<L>);

impl<L: Layers> Cache for AllCaches<L> {
    fn clear(&self) -> Cleared {
        CacheGroup(&L::store().caches()).clear()
    }

    fn each_list(&self, visit: &mut dyn FnMut(Option<usize>, CacheStats)) {
        CacheGroup(&L::store().caches()).each_list(visit);
    }
}

/// Declares the choices of layers. A thread's memory is created when it is first used, and then
/// lives until the process ends, like the memory of an interpreter.
macro_rules! layers {
    ($($(#[$doc:meta])* $Choice:ident($name:literal): $Below:ty = $below:expr, cached: $cached:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $Choice;

        impl Layers for $Choice {
            type Below = $Below;

            const NAME: &'static str = $name;
            const CACHED: bool = $cached;

            #[inline]
            fn store() -> &'static Store<Self> {
                thread_local! {
                    static STORE: &'static Store<$Choice> = Box::leak(Box::new(Store::new($below)));
                }
                STORE.with(|store| *store)
            }
        }
    )*};
}

layers! {
    /// Layer 1 (malloc) alone.
    MallocAlone("malloc"): Malloc = Malloc, cached: false;

    /// Layer 2 (pools) on top of layer 1 (malloc).
    Pools("malloc + pools"): &'static Pool = pool(), cached: false;

    /// Layer 3 (caches) on top of layer 1 (malloc).
    CachesOverMalloc("malloc + caches"): RetryAfterClear<Malloc, AllCaches<Self>> =
        RetryAfterClear::new(Malloc, AllCaches::default()), cached: true;

    /// Layer 3 (caches) on top of layer 2 (pools) on top of layer 1 (malloc).
    CachesOverPools("malloc + pools + caches"): RetryAfterClear<&'static Pool, AllCaches<Self>> =
        RetryAfterClear::new(pool(), AllCaches::default()), cached: true;
}

/// Returns the calling thread's pools.
pub fn pool() -> &'static Pool {
    thread_local! {
        static POOL: &'static Pool = Box::leak(Box::new(new_pool()));
    }
    POOL.with(|pool| *pool)
}

fn new_pool() -> Pool {
    let arenas = Arenas::new(MmapArenas::new(), Malloc);
    // SAFETY: only the thread that created the pools uses them, because objects are not `Send`. No
    // code in the heap calls back into the heap.
    let heap = unsafe { GilHeld::new(Heap::new(arenas, Malloc)) };
    // SAFETY: malloc never returns memory of the heap's arenas.
    unsafe { Pymalloc::new(heap, Malloc) }
}
