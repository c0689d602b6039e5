//! The heap, and its place in CPython.
//!
//! ```text
//!   mem ─► (Counting) ─┐              large, foreign
//!                      ├─► Pymalloc ─► (Counting) ─► Lower
//!   obj ─► (Counting) ─┘
//! ```
//!
//! If CPython sets its debug hooks, debug hooks are the uppermost layer, also of the domain raw.
//!
//! The `Counting` layers exist only if the user requests statistics.
//!
//! The domains mem and obj share a heap, because some extensions allocate in one and free in the
//! other.

use allocator_api::{
    CAllocator, Domain, VTable,
    hooks::{Counting, Counts, Tally},
};
use obmalloc::{Access, Blocks, Geometry, GilHeld, Heap, KnownArenas, Pools16K, Pymalloc, Stats};
use raw_mem::{ArenaSource, MmapArenas, PageBlocks, ReservedArenas, RetainingArenas};
use thread_heap::PerThread;

use crate::{
    abi::CPython,
    debug,
    decide::Guard,
    domains::SERVED,
    interpreters::{self, PerInterpreter},
    lower::Lower,
    options::Options,
    reinit::{self, Ours},
    settings::Settings,
};

/// The largest request that the heap serves, in bytes.
pub(crate) const SMALL: usize = Pools16K::SIZES.small_threshold;

/// The largest size of the reserved range of addresses, in bytes.
///
/// CPython's blocks above 512 bytes are not in this range. If a program limits its address space, it
/// needs the addresses of unmapped arenas for them.
const RESERVED: usize = 16 << 20;

/// The only heap of a CPython with one GIL.
///
/// Its metadata is not in CPython's raw domain, because a program may hook that domain and later
/// remove the hook.
type GilHeap = GilHeld<Heap<Arenas, PageBlocks, Pools16K>>;

type Arenas = KnownArenas<RetainingArenas<ReservedArenas<MmapArenas>>, PageBlocks, Pools16K>;

/// The installed heap. It is never dropped, because CPython may call it until the process ends.
enum Installed {
    OneGil(&'static GilHeap),
    PerInterpreter,
}

struct Counters {
    above: [&'static Counting<CAllocator>; 2],
    below: &'static Counting<Lower>,
}

pub(crate) struct Installation {
    heap: Installed,
    counters: Option<Counters>,
}

impl Installation {
    /// Installs the heap now, or prepares to do so once CPython has set allocators of its own.
    pub(crate) fn new(
        python: &CPython,
        guard: Guard,
        settings: &Settings,
        options: &Options,
    ) -> Self {
        let lower = Lower::new(python);
        let (heap, plain, counters) = match guard {
            Guard::Gil => {
                let mut arenas = RetainingArenas::new(ReservedArenas::new(MmapArenas::new()));
                arenas.reserve_at_most(RESERVED);
                let heap = Heap::new(KnownArenas::new(arenas, PageBlocks), PageBlocks);
                // SAFETY: up to CPython 3.11, a thread calls mem and obj only while it holds the
                // only GIL. Neither the arena source nor `PageBlocks` calls back into the heap.
                let heap = unsafe { GilHeld::new(heap) };
                let (heap, vtables, counters) = stack(heap, lower, settings);
                (Installed::OneGil(heap), vtables, counters)
            }
            Guard::Interpreters => {
                PerThread.reserve_at_most(RESERVED);
                interpreters::watch(python);
                let (_, vtables, counters) = stack(PerInterpreter, lower, settings);
                (Installed::PerInterpreter, vtables, counters)
            }
        };
        if options.choice.is_some() {
            let [mem, obj] = plain;
            let below = [python.allocator(Domain::Raw), mem, obj];
            // SAFETY: CPython could use each of these allocators, which are never dropped.
            let hooked = Some(unsafe { debug::hooks(python, below) });
            reinit::watch(python, guard, Ours { plain, hooked }, true);
            return Self { heap, counters };
        }
        if guard == Guard::Interpreters {
            reinit::watch(python, guard, Ours { plain, hooked: None }, false);
        }
        for (domain, vtable) in SERVED.into_iter().zip(&plain) {
            // SAFETY: the domain has no live block yet, and its allocators are never dropped.
            // CPython calls them only under the lock that `decide` chose for this version.
            unsafe { python.set_allocator(domain, vtable) };
        }
        Self { heap, counters }
    }

    /// Counts the memory in use, or returns `None` if another thread may be inside the heap.
    ///
    /// From CPython 3.12 on, the figures leave out other interpreters and other running threads.
    pub(crate) fn heap_stats(&self, python: &CPython) -> Option<Stats> {
        let has_ended = !python.is_initialized();
        match self.heap {
            Installed::OneGil(heap) => (has_ended || python.holds_gil()).then(|| heap.stats()),
            Installed::PerInterpreter => {
                let is_alone = has_ended || interpreters::main_is_current();
                // SAFETY: this thread holds the main GIL, or no interpreter runs.
                is_alone.then(|| unsafe { PerInterpreter.stats() })
            }
        }
    }

    pub(crate) fn requested(&self) -> Option<[Counts; 2]> {
        self.counters.as_ref().map(|counters| counters.above.map(Counting::counts))
    }

    /// Returns the count of small requests that reached the allocator below the heap.
    pub(crate) fn passed_below(&self) -> Option<Tally> {
        self.counters.as_ref().map(|counters| counters.below.counts().small)
    }
}

/// Stacks `heap` on `lower`, with counting layers if the settings request statistics.
fn stack<B: Blocks + Sync + 'static>(
    heap: B,
    lower: Lower,
    settings: &Settings,
) -> (&'static B, [VTable; 2], Option<Counters>) {
    if settings.stats.is_none() {
        // SAFETY: CPython's raw and own allocators never call mem or obj, so `lower` never calls
        // back.
        let pymalloc = leak(unsafe { Pymalloc::new(heap, lower) });
        return (pymalloc.access(), [VTable::of(pymalloc); 2], None);
    }
    let below = leak(Counting::new(lower, SMALL));
    // SAFETY: CPython's raw and own allocators never call mem or obj, so `lower` never calls back.
    let pymalloc = leak(unsafe { Pymalloc::new(heap, below) });
    let above = SERVED.map(|_| leak(Counting::new(CAllocator::of(pymalloc), SMALL)));
    (pymalloc.access(), above.map(VTable::of), Some(Counters { above, below }))
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}
