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
    CAllocator, Limited, VTable,
    hooks::{Counting, Counts, Tally},
};
use obmalloc::{Access, Blocks, Geometry, GilHeld, Heap, KnownArenas, Pools16K, Pymalloc, Stats};
use raw_mem::{
    ArenaSource, Limits, MemAlloc, MmapArenas, PageBlocks, ReservedArenas, RetainingArenas,
};
use thread_heap::{Figures, PerThread};

use crate::{
    abi::CPython,
    decide::Guard,
    domains::SERVED,
    interpreters::{self, PerInterpreter},
    limit,
    lower::Lower,
    reinit,
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
    pub(crate) fn new(python: &CPython, guard: Guard, settings: &Settings) -> Self {
        let lower = Lower::new(python);
        let (heap, vtables, counters) = match guard {
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

    /// Counts the memory of all interpreters and threads, without stopping them.
    ///
    /// Returns `None` up to CPython 3.11, whose only heap no other thread can count, and if a thread
    /// is mapping memory.
    pub(crate) fn try_figures(&self) -> Option<Figures> {
        match self.heap {
            Installed::OneGil(_) => None,
            Installed::PerInterpreter => PerThread.try_figures(),
        }
    }

    pub(crate) fn requested(&self) -> Option<[Counts; 2]> {
        self.counters.as_ref().map(|counters| counters.above.map(Counting::counts))
    }

    /// Returns the number and the bytes of all requests to the domains.
    pub(crate) fn requests(&self) -> Option<(u64, u64)> {
        let counts = self.requested()?;
        let tallies = counts.iter().flat_map(|counts| [counts.small, counts.large]);
        Some(tallies.fold(
            (0, 0),
            |(requests, bytes), Tally { requests: more, bytes: size, .. }| {
                (requests + more, bytes + size)
            },
        ))
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
        return (pymalloc.access(), [within_limits(pymalloc, settings).vtable(); 2], None);
    }
    let below = leak(Counting::new(lower, SMALL));
    // SAFETY: CPython's raw and own allocators never call mem or obj, so `lower` never calls back.
    let pymalloc = leak(unsafe { Pymalloc::new(heap, below) });
    let limited = within_limits(pymalloc, settings);
    let above = SERVED.map(|_| leak(Counting::new(limited, SMALL)));
    (pymalloc.access(), above.map(VTable::of), Some(Counters { above, below }))
}

/// Returns the allocator, which has a limit if the settings name one.
fn within_limits<A: MemAlloc + Sync>(allocator: &'static A, settings: &Settings) -> CAllocator {
    match settings.limits {
        Limits::NONE => CAllocator::of(allocator),
        limits => CAllocator::of(leak(Limited::new(allocator, limits, limit::ask))),
    }
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}
