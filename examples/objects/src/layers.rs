//! A switch for each layer: where objects come from, as a type.
//!
//! ```text
//!                 caches off             caches on
//!   pools off     MallocAlone            CachesOverMalloc
//!   pools on      Pools                  CachesOverPools
//! ```
//!
//! The type is a parameter of every object, so that a layer that is off is not there at all.

use core::fmt::Debug;

use object_cache::{Counted, FreeList, KeyedFreeList, Named, Registry, presets};
use obmalloc::{GilHeld, Heap, KnownArenas, Pools16K, Pymalloc};
use presets::{Kind, PYTHON_3_14};
use raw_mem::{Malloc, MemAlloc, MmapArenas};

use crate::{Dict, List, Value, row::RowHead};

type Arenas = KnownArenas<MmapArenas, Malloc, Pools16K>;

/// Layer 2 over layer 1, for one thread.
pub type Pool = Pymalloc<GilHeld<Heap<Arenas, Malloc, Pools16K>>, Malloc>;

/// A choice of layers.
pub trait Layers: Copy + Debug + Default + 'static {
    /// What is below the caches.
    type Below: MemAlloc + Copy + Debug + 'static;

    /// How a table names the choice.
    const NAME: &'static str;

    /// Whether dead objects are cached, and small ints immortal.
    const CACHED: bool;

    /// The running thread's memory.
    fn store() -> &'static Store<Self>;
}

/// One thread's memory: the layers below, and a cache for each type, with CPython 3.14's bounds.
#[derive(Debug)]
pub struct Store<L: Layers> {
    /// What is below the caches.
    pub below: L::Below,
    pub(crate) ints: FreeList<Counted<i64>, L::Below>,
    pub(crate) floats: FreeList<Counted<f64>, L::Below>,
    pub(crate) lists: FreeList<Counted<List<L>>, L::Below>,
    pub(crate) dicts: FreeList<Counted<Dict<L>>, L::Below>,
    pub(crate) tuples: KeyedFreeList<RowHead, Value<L>, L::Below, 20>,
}

const fn bound(kind: Kind) -> u32 {
    PYTHON_3_14.bound(kind).expect("CPython 3.14 caches it")
}

impl<L: Layers> Store<L> {
    fn new(below: L::Below) -> Self {
        Self {
            below,
            ints: FreeList::new(const { bound(Kind::Int) }, below),
            floats: FreeList::new(const { bound(Kind::Float) }, below),
            lists: FreeList::new(const { bound(Kind::List) }, below),
            dicts: FreeList::new(const { bound(Kind::Dict) }, below),
            tuples: KeyedFreeList::new(const { bound(Kind::Tuple) }, below),
        }
    }

    /// Calls `body` with all caches registered under their names.
    pub fn registered<R>(&self, registry: &Registry, body: impl FnOnce() -> R) -> R {
        let caches = [
            Named { name: "Dict", cache: &self.dicts },
            Named { name: "Float", cache: &self.floats },
            Named { name: "Int", cache: &self.ints },
            Named { name: "List", cache: &self.lists },
            Named { name: "Tuple", cache: &self.tuples },
        ];
        registry.during(&caches, body)
    }
}

/// Declares a choice of layers. What a thread's objects live in is made when it is first asked
/// for, and lives as long as the process, as an interpreter's does.
macro_rules! layers {
    ($(#[$doc:meta])* $Choice:ident, $name:literal, cached: $cached:literal, below: $Below:ty = $below:expr) => {
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
    };
}

layers! {
    /// Layer 1 alone.
    MallocAlone, "malloc", cached: false, below: Malloc = Malloc
}

layers! {
    /// Layer 2 over layer 1.
    Pools, "malloc + pools", cached: false, below: &'static Pool = pool()
}

layers! {
    /// Layer 3 over layer 1.
    CachesOverMalloc, "malloc + caches", cached: true, below: Malloc = Malloc
}

layers! {
    /// Layer 3 over layer 2 over layer 1.
    CachesOverPools, "malloc + pools + caches", cached: true, below: &'static Pool = pool()
}

fn pool() -> &'static Pool {
    let arenas = Arenas::new(MmapArenas::new(), Malloc);
    // SAFETY: the pools belong to the thread that asked for them, and neither they nor the
    // objects in them are sent to another one; nothing in the heap calls back.
    let heap = unsafe { GilHeld::new(Heap::new(arenas, Malloc)) };
    // SAFETY: malloc does not serve memory of the heap's arenas.
    Box::leak(Box::new(unsafe { Pymalloc::new(heap, Malloc) }))
}
