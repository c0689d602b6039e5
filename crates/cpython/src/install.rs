//! The heap, and its place in CPython.
//!
//! ```text
//!   without statistics            with statistics
//!
//!   mem ─┐                        mem ─► Counting ─┐
//!        ├─► Pymalloc             obj ─► Counting ─┴─► Pymalloc
//!   obj ─┘      │                                        │
//!               ▼ large, foreign                         ▼ Counting
//!             Lower                                    Lower
//! ```
//!
//! Up to 3.11 there is one heap, which the holder of the GIL enters. From 3.12 on, each interpreter
//! has its own heap, and may have its own GIL.
//!
//! Both domains share the heap, as in CPython, because extensions allocate a block in one domain
//! and free it in the other. Layers that nobody asked for are left out, so they cost nothing.

use allocator_api::{
    CAllocator, VTable,
    hooks::{Counting, Counts, Tally},
};
use obmalloc::{Access, Blocks, Geometry, GilHeld, Heap, KnownArenas, Pools16K, Pymalloc, Stats};
use raw_mem::{MmapArenas, PageBlocks, RetainingArenas};

use crate::{
    abi::CPython,
    decide::Guard,
    domains::SERVED,
    interpreters::{self, PerInterpreter},
    lower::Lower,
    reinit,
    settings::Settings,
};

/// The largest request that the heap serves, in bytes.
pub(crate) const SMALL: usize = Pools16K::SIZES.small_threshold;

/// The only heap of a CPython with one GIL.
///
/// Its metadata lives on its own pages rather than in the raw domain, for two reasons. The raw
/// domain may be hooked and later unhooked while the heap still holds a block from it, and the
/// arena map is large but mostly empty.
type GilHeap = GilHeld<Heap<Arenas, PageBlocks, Pools16K>>;

type Arenas = KnownArenas<RetainingArenas<MmapArenas>, PageBlocks, Pools16K>;

/// The heap of an installation. It is never dropped, because CPython may call it until the process
/// ends.
enum Installed {
    OneGil(&'static GilHeap),
    PerInterpreter,
}

/// The hooks that count.
struct Counters {
    /// Over the heap, for each of [`SERVED`].
    above: [&'static Counting<CAllocator>; 2],
    /// Between the heap and the layer below.
    below: &'static Counting<Lower>,
}

/// An installed heap.
pub(crate) struct Installation {
    heap: Installed,
    counters: Option<Counters>,
}

impl Installation {
    /// Makes the heap serve mem and obj.
    pub(crate) fn new(python: &CPython, guard: Guard, settings: &Settings) -> Self {
        let lower = Lower::new(python);
        let (heap, vtables, counters) = match guard {
            Guard::Gil => {
                let arenas = RetainingArenas::new(MmapArenas::new());
                let heap = Heap::new(KnownArenas::new(arenas, PageBlocks), PageBlocks);
                // SAFETY: up to 3.11, CPython calls the domains mem and obj with the one GIL held.
                // Neither the source nor `PageBlocks` calls back.
                let heap = unsafe { GilHeld::new(heap) };
                let (heap, vtables, counters) = stack(heap, lower, settings);
                (Installed::OneGil(heap), vtables, counters)
            }
            Guard::Interpreters => {
                interpreters::watch(python);
                let (_, vtables, counters) = stack(PerInterpreter, lower, settings);
                reinit::watch(python, vtables);
                (Installed::PerInterpreter, vtables, counters)
            }
        };
        for (domain, vtable) in SERVED.into_iter().zip(&vtables) {
            // SAFETY: the interpreter has not started, so the domain has no block. The vtable's
            // functions are never dropped, and the guard is the one that this version needs.
            unsafe { python.set_allocator(domain, vtable) };
        }
        Self { heap, counters }
    }

    /// Counts what is in use by walking the heap. Returns `None` if another thread may be inside.
    ///
    /// From 3.12 on, the heaps of other interpreters and threads that are still running are not
    /// included.
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

    /// Returns the requests to each of [`SERVED`], if they were counted.
    pub(crate) fn requested(&self) -> Option<[Counts; 2]> {
        self.counters.as_ref().map(|counters| counters.above.map(Counting::counts))
    }

    /// Returns the small requests that the heap passed to the layer below, if they were counted.
    pub(crate) fn passed_below(&self) -> Option<Tally> {
        self.counters.as_ref().map(|counters| counters.below.counts().small)
    }
}

/// Stacks allocators for [`SERVED`] over `heap` and `lower`, with counting hooks if statistics are
/// requested.
fn stack<B: Blocks + Sync + 'static>(
    heap: B,
    lower: Lower,
    settings: &Settings,
) -> (&'static B, [VTable; 2], Option<Counters>) {
    if settings.stats.is_none() {
        // SAFETY: the raw domain does not allocate from the domains that the heap serves.
        let pymalloc = leak(unsafe { Pymalloc::new(heap, lower) });
        return (pymalloc.access(), [VTable::of(pymalloc); 2], None);
    }
    let below = leak(Counting::new(lower, SMALL));
    // SAFETY: the raw domain does not allocate from the domains that the heap serves.
    let pymalloc = leak(unsafe { Pymalloc::new(heap, below) });
    let above = SERVED.map(|_| leak(Counting::new(CAllocator::of(pymalloc), SMALL)));
    (pymalloc.access(), above.map(VTable::of), Some(Counters { above, below }))
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}
