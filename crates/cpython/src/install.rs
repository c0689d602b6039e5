//! The heap, and its place in CPython.
//!
//! ```text
//!   mem ─► (Counting) ─┐              large, foreign
//!                      ├─► Pymalloc ─► (Counting) ─► Lower
//!   obj ─► (Counting) ─┘
//! ```
//!
//! The `Counting` layers exist only if the user requests statistics.
//!
//! The domains mem and obj share a heap, because some extensions allocate in one and free in the
//! other.

use allocator_api::{
    CAllocator, VTable,
    hooks::{Counting, Counts, Tally},
};
use obmalloc::{Access, Blocks, Geometry, GilHeld, Heap, KnownArenas, Pymalloc, Stats};
use raw_mem::{ArenaSource, MmapArenas, PageBlocks, ReservedArenas, RetainingArenas};
use thread_heap::{PerThread, ThreadGeometry};

use crate::{
    abi::CPython,
    decide::{Guard, Plan, Refusal},
    domains::SERVED,
    interpreters::{self, PerInterpreter},
    lower::Lower,
    reinit, self_check,
    settings::Settings,
};

/// The largest request that the heap serves, in bytes.
pub(crate) const SMALL: usize = ThreadGeometry::SIZES.small_threshold;

/// The largest size of the reserved range of addresses, in bytes.
///
/// CPython's blocks above 512 bytes are not in this range. If a program limits its address space, it
/// needs the addresses of unmapped arenas for them.
const RESERVED: usize = 16 << 20;

/// The only heap of a CPython with one GIL.
///
/// It has the geometry of the heaps from 3.12 on. A short `text_counts` executes 2.5 % fewer
/// instructions than with [`Pools16K`](obmalloc::Pools16K), and a short `event_queue` 1.6 % fewer.
///
/// Its metadata is not in CPython's raw domain, because a program may hook that domain and later
/// remove the hook.
type GilHeap = GilHeld<Heap<Arenas, PageBlocks, ThreadGeometry>>;

type Arenas = KnownArenas<RetainingArenas<ReservedArenas<MmapArenas>>, PageBlocks, ThreadGeometry>;

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
    /// Installs the heap according to `plan`. A newer CPython gets its own allocators back if it
    /// fails the trial.
    ///
    /// # Safety
    ///
    /// - `plan` must be the plan for `python`, which must not have started since then.
    /// - No other thread may use CPython's allocators in the meantime.
    pub(crate) unsafe fn by_plan(
        python: &CPython,
        plan: Plan,
        settings: &Settings,
    ) -> Result<Self, Refusal> {
        let own = SERVED.map(|domain| python.allocator(domain));
        let installation = Self::new(python, plan.guard, settings);
        if let Some(version) = plan.newer {
            // SAFETY: the heap is installed, and no one else makes requests (contract).
            let trial = unsafe { self_check::check_operations(|| installation.heap_stats(python)) };
            if let Err(difference) = trial {
                for (domain, vtable) in SERVED.into_iter().zip(&own) {
                    // SAFETY: CPython has not used the heap yet, so no live block comes from it.
                    unsafe { python.set_allocator(domain, vtable) };
                }
                return Err(Refusal::Differs { version, difference });
            }
        }
        Ok(installation)
    }

    fn new(python: &CPython, guard: Guard, settings: &Settings) -> Self {
        let lower = Lower::new(python);
        let (heap, vtables, counters) = match guard {
            Guard::Gil => {
                let mut arenas = RetainingArenas::new(ReservedArenas::new(MmapArenas::new()));
                arenas.reserve_at_most(RESERVED);
                let arenas = KnownArenas::with_geometry(arenas, PageBlocks);
                let mut heap = Heap::with_geometry(arenas, PageBlocks);
                heap.begin_blocks_as_in_cpython();
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
                reinit::watch(python, vtables);
                (Installed::PerInterpreter, vtables, counters)
            }
        };
        for (domain, vtable) in SERVED.into_iter().zip(&vtables) {
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
