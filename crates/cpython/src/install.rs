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
//! In CPython up to 3.11, the process has one GIL and one heap. Only the thread that holds the GIL
//! enters the heap. In CPython 3.12 and later, each interpreter has its own heap, and may have its
//! own GIL.
//!
//! Some extensions allocate a block in the domain mem and free it in the domain obj, or the
//! reverse. This works in CPython, because both domains share one allocator. Our domains mem and
//! obj therefore share the heap too. The counting layers exist only if the user requests
//! statistics, so they cost nothing otherwise.

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
/// The heap's metadata lives on its own pages rather than in CPython's raw domain, for two reasons.
/// First, a program may hook the raw domain and later remove the hook, while the heap still holds a
/// block that the hook allocated. Second, the arena map is large but mostly empty.
type GilHeap = GilHeld<Heap<Arenas, PageBlocks, Pools16K>>;

type Arenas = KnownArenas<RetainingArenas<MmapArenas>, PageBlocks, Pools16K>;

/// The heap that was installed. CPython may call the heap until the process ends, so the heap is
/// never dropped.
enum Installed {
    OneGil(&'static GilHeap),
    PerInterpreter,
}

/// The hooks that count requests for the statistics.
struct Counters {
    /// The hooks above the heap, one for each domain of [`SERVED`].
    above: [&'static Counting<CAllocator>; 2],
    /// The hook between the heap and the allocator below it.
    below: &'static Counting<Lower>,
}

/// An installed heap.
pub(crate) struct Installation {
    heap: Installed,
    counters: Option<Counters>,
}

impl Installation {
    /// Makes the heap serve CPython's domains mem and obj.
    pub(crate) fn new(python: &CPython, guard: Guard, settings: &Settings) -> Self {
        let lower = Lower::new(python);
        let (heap, vtables, counters) = match guard {
            Guard::Gil => {
                let arenas = RetainingArenas::new(MmapArenas::new());
                let heap = Heap::new(KnownArenas::new(arenas, PageBlocks), PageBlocks);
                // SAFETY: in CPython up to 3.11, a thread calls the domains mem and obj only while
                // it holds the only GIL. Neither the arena source nor `PageBlocks` calls back into
                // the heap.
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
            // SAFETY: the interpreter has not started, so the domain has no live block. The
            // allocators behind the vtable are never dropped. CPython calls them only under the
            // lock that `guard` names, because `decide` chose `guard` for this version of CPython.
            unsafe { python.set_allocator(domain, vtable) };
        }
        Self { heap, counters }
    }

    /// Counts the memory in use by walking the heap. Returns `None` if another thread may be inside
    /// the heap, because the heap must not change during the walk.
    ///
    /// From CPython 3.12 on, the figures leave out the heaps of other interpreters and the heaps of
    /// other threads that are still running.
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

    /// Returns the counts of the requests to each domain of [`SERVED`], or `None` if we do not
    /// count them.
    pub(crate) fn requested(&self) -> Option<[Counts; 2]> {
        self.counters.as_ref().map(|counters| counters.above.map(Counting::counts))
    }

    /// Returns the count of the small requests that the heap forwarded to the allocator below it,
    /// or `None` if we do not count them.
    pub(crate) fn passed_below(&self) -> Option<Tally> {
        self.counters.as_ref().map(|counters| counters.below.counts().small)
    }
}

/// Builds the allocators for the domains in [`SERVED`]. These allocators take small blocks from
/// `heap`, and forward all other requests to `lower`. If the settings request statistics, also adds
/// hooks that count requests.
fn stack<B: Blocks + Sync + 'static>(
    heap: B,
    lower: Lower,
    settings: &Settings,
) -> (&'static B, [VTable; 2], Option<Counters>) {
    if settings.stats.is_none() {
        // SAFETY: `lower` allocates from CPython's raw domain. The raw domain never allocates from
        // the domains mem and obj, so `lower` never calls back into the heap.
        let pymalloc = leak(unsafe { Pymalloc::new(heap, lower) });
        return (pymalloc.access(), [VTable::of(pymalloc); 2], None);
    }
    let below = leak(Counting::new(lower, SMALL));
    // SAFETY: `lower` allocates from CPython's raw domain. The raw domain never allocates from the
    // domains mem and obj, so `lower` never calls back into the heap.
    let pymalloc = leak(unsafe { Pymalloc::new(heap, below) });
    let above = SERVED.map(|_| leak(Counting::new(CAllocator::of(pymalloc), SMALL)));
    (pymalloc.access(), above.map(VTable::of), Some(Counters { above, below }))
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}
