//! The heap, and its position among CPython's allocators.
//!
//! ```text
//!   mem ─► (Counting) ─┐              large, foreign
//!                      ├─► Pymalloc ─► (Counting) ─► Lower
//!   obj ─► (Counting) ─┘
//! ```
//!
//! CPython's memory domains mem and obj share one heap, because some extensions allocate a block in
//! one domain and free it in the other. If the user requests statistics, we add three layers of
//! type `Counting`: one above the heap for each of the two domains, and one below it. The upper two
//! count the requests to their domain. The lower one counts the requests that the heap passes on to
//! `Lower`, the allocator below it.
//!
//! Debug hooks add guard bytes to each block and report damaged blocks. If CPython sets its own
//! debug hooks, we replace them with ours. Our hooks receive every request to the domains raw, mem
//! and obj, and pass it on to the allocator that serves the domain.

use std::{sync::OnceLock, time::Duration};

use allocator_api::{
    CAllocator, Domain, Limited, VTable,
    hooks::{Counting, Counts, Tally},
};
use obmalloc::{
    Access, Blocks, Geometry, GilHeld, Heap, KnownArenas, Native, PurgePolicy, Pymalloc, Stats,
};
use raw_mem::{
    ArenaSource, Limits, MemAlloc, MemoryPressure, MmapArenas, PageBlocks, ReservedArenas,
    RetainingArenas, coarse_now,
};
use thread_heap::{Figures, PerThread};

use crate::{
    abi::CPython,
    beating::Beating,
    c_library, debug,
    decide::{Guard, Plan, Refusal},
    domains::SERVED,
    interpreters::{self, PerInterpreter},
    limit,
    lower::Lower,
    options::Options,
    reinit::{self, Ours},
    self_check,
    settings::Settings,
};

/// The largest size of a small request, in bytes.
///
/// The heap serves all small requests. It passes larger requests to the allocator below it, except
/// those that get a span, which is a pool of one block
/// (see [`Rules::spans_from`](obmalloc::Rules::spans_from)).
pub(crate) const SMALL: usize = Native::SIZES.small_threshold;

/// The largest size of the address range that the heap reserves for its arenas, in bytes.
///
/// The range is small, because some programs have only a limited address space. The C library's
/// `malloc` serves most of CPython's requests above 512 bytes, and it cannot use the addresses of
/// the range, even if the heap has unmapped all of its arenas.
///
/// If the user requests huge pages for the heap, the range may grow beyond this size, because only
/// arenas in the range can have huge pages.
const RESERVED: usize = 16 << 20;

/// The only heap of a CPython with one GIL.
///
/// A geometry defines the sizes and the layout of arenas and pools. This heap uses our geometry
/// `Native` instead of [`Pools16K`](obmalloc::Pools16K), the geometry of CPython's own allocator.
/// With `Native`, a Python program executes fewer instructions: 2.5 % fewer in a short run of the
/// benchmark `text_counts`, and 1.6 % fewer in one of `event_queue`.
///
/// The heap's metadata comes from `PageBlocks` rather than from CPython's raw domain. A program
/// could hook the raw domain and later remove the hook. The heap would then free metadata to an
/// allocator that did not allocate it.
type GilHeap = GilHeld<Heap<Arenas, PageBlocks, Native>>;

type Arenas = KnownArenas<RetainingArenas<ReservedArenas<MmapArenas>>, PageBlocks, Native>;

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
    /// Installs the heap according to `plan`.
    ///
    /// If CPython will set its own allocators later, this function only prepares the installation.
    ///
    /// If CPython is newer than the tested versions, this function first tests the heap. To do so,
    /// it sets the heap as CPython's allocator, calls each operation of the heap, and restores
    /// CPython's own allocators. If an operation gave a wrong result, the function returns an error
    /// and does not install the heap.
    ///
    /// # Safety
    ///
    /// - `plan` must be the [`Plan`] that [`decide`](crate::decide::decide) returned for `python`.
    /// - CPython must not have been initialised since `decide` was called.
    /// - No other thread may use CPython's allocators during the call.
    pub(crate) unsafe fn by_plan(
        python: &CPython,
        plan: Plan,
        settings: &Settings,
        options: &Options,
    ) -> Result<Self, Refusal> {
        let guard = plan.guard;
        let (installation, plain) = Self::prepare(python, guard, settings);
        if let Some(version) = plan.newer {
            // SAFETY: no one else makes requests (contract).
            let trial = unsafe { installation.try_out(python, &plain) };
            trial.map_err(|difference| Refusal::Differs { version, difference })?;
        }
        if options.choice.is_some() {
            let [mem, obj] = plain;
            let below = [python.allocator(Domain::Raw), mem, obj];
            // SAFETY: CPython could use each of these allocators, which are never dropped.
            let hooked = Some(unsafe { debug::hooks(python, below) });
            reinit::watch(python, guard, Ours { plain, hooked }, true);
            return Ok(installation);
        }
        if guard == Guard::Interpreters {
            reinit::watch(python, guard, Ours { plain, hooked: None }, false);
        }
        set(python, &plain);
        Ok(installation)
    }

    /// Tries each operation of the heap, and then restores CPython's own allocators.
    ///
    /// # Safety
    ///
    /// - CPython must not have started, and no other thread may use its allocators in the meantime.
    #[inline(never)]
    unsafe fn try_out(
        &self,
        python: &CPython,
        plain: &[VTable; 2],
    ) -> Result<(), self_check::Difference> {
        let own = SERVED.map(|domain| python.allocator(domain));
        set(python, plain);
        // SAFETY: the heap is installed, and no one else makes requests (contract).
        let trial = unsafe { self_check::check_operations(|| self.heap_stats(python)) };
        // The trial has freed all its blocks.
        set(python, &own);
        trial
    }

    fn prepare(python: &CPython, guard: Guard, settings: &Settings) -> (Self, [VTable; 2]) {
        let lower = Lower::new(python);
        c_library::start(settings.decay);
        let (heap, plain, counters) = match guard {
            Guard::Gil => {
                let mut arenas = RetainingArenas::new(ReservedArenas::new(MmapArenas::new()));
                match settings.huge_pages.is_on() {
                    true => arenas.use_huge_pages(settings.huge_pages),
                    false => arenas.reserve_at_most(RESERVED),
                }
                let arenas = KnownArenas::with_geometry(arenas, PageBlocks);
                let mut heap = Heap::with_geometry(arenas, PageBlocks);
                // Python's garbage collector is faster if blocks begin where CPython's blocks do.
                heap.begin_blocks_as_in_cpython();
                heap.set_purge_policy(purge_policy(settings));
                // SAFETY: up to CPython 3.11, a thread calls mem and obj only while it holds the
                // only GIL. Neither the arena source nor `PageBlocks` calls back into the heap.
                let heap = unsafe { GilHeld::new(heap) };
                let (heap, vtables, counters) = stack(heap, lower, settings);
                (Installed::OneGil(heap), vtables, counters)
            }
            Guard::Interpreters => {
                match settings.huge_pages.is_on() {
                    true => PerThread.use_huge_pages(settings.huge_pages),
                    false => PerThread.reserve_at_most(RESERVED),
                }
                PerThread.set_decay(settings.decay);
                if settings.trim_when_short {
                    PerThread.trim_when_short(MemoryPressure::of_process());
                }
                interpreters::watch(python);
                let (_, vtables, counters) = stack(PerInterpreter, lower, settings);
                (Installed::PerInterpreter, vtables, counters)
            }
        };
        (Self { heap, counters }, plain)
    }

    /// Counts the memory in use, or returns `None` if another thread may be inside the heap.
    ///
    /// From CPython 3.12 on, the result excludes other interpreters and other running threads.
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

    /// Returns unused memory of the current interpreter's heap and of the C library to the system.
    ///
    /// The result is the number of bytes that the heap returned. The C library does not report how
    /// much it returned.
    ///
    /// # Safety
    ///
    /// - The calling thread must hold the GIL of an interpreter.
    pub(crate) unsafe fn trim(&self) -> usize {
        let bytes = match self.heap {
            Installed::OneGil(heap) => Access::trim(heap),
            Installed::PerInterpreter => Blocks::trim(&PerInterpreter),
        };
        c_library::trim();
        bytes
    }

    /// Counts the memory of all interpreters and threads, without stopping them.
    ///
    /// Returns `None` if a thread is mapping memory for a heap at the moment.
    ///
    /// With CPython 3.11 and earlier, this function always returns `None`. Only a thread that holds
    /// the GIL may read the heap of these versions. However, a signal handler may call this
    /// function on a thread that does not hold the GIL.
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

    /// Returns the counts of the requests that reached the allocator below the heap.
    pub(crate) fn passed_below(&self) -> Option<Counts> {
        self.counters.as_ref().map(|counters| counters.below.counts())
    }
}

/// Returns the purge policy for the only heap of a CPython with one GIL.
fn purge_policy(settings: &Settings) -> PurgePolicy {
    let decayed = |decay| PurgePolicy::after(decay, coarse_now);
    let mut policy = settings.decay.map_or(PurgePolicy::NEVER, decayed);
    if settings.huge_pages.is_on() {
        policy = policy.of_whole_arenas();
    }
    if settings.trim_when_short {
        PRESSURE.get_or_init(MemoryPressure::of_process);
        policy = policy.when_short(coarse_now, is_short);
    }
    policy
}

/// The memory pressure, if the user wants the only heap to be trimmed while memory is short.
static PRESSURE: OnceLock<MemoryPressure> = OnceLock::new();

fn is_short(now: Duration) -> bool {
    PRESSURE.get().is_some_and(|pressure| {
        pressure.read_if_due(now);
        pressure.is_short()
    })
}

/// Sets the allocators of the served domains, which must have no live block.
fn set(python: &CPython, vtables: &[VTable; 2]) {
    for (domain, vtable) in SERVED.into_iter().zip(vtables) {
        // SAFETY: the domain has no live block, and the allocators are never dropped. CPython calls
        // them only under the lock that `decide` chose for this version.
        unsafe { python.set_allocator(domain, vtable) };
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
        let pymalloc = leak(unsafe { Pymalloc::new(Beating::new(heap), lower) });
        return (pymalloc.access().heap(), [within_limits(pymalloc, settings).vtable(); 2], None);
    }
    let below = leak(Counting::new(lower, SMALL));
    // SAFETY: CPython's raw and own allocators never call mem or obj, so `lower` never calls back.
    let pymalloc = leak(unsafe { Pymalloc::new(Beating::new(heap), below) });
    let limited = within_limits(pymalloc, settings);
    let above = SERVED.map(|_| leak(Counting::new(limited, SMALL)));
    (pymalloc.access().heap(), above.map(VTable::of), Some(Counters { above, below }))
}

/// Returns `allocator`, wrapped in a limit if the settings specify one.
fn within_limits<A: MemAlloc + Sync>(allocator: &'static A, settings: &Settings) -> CAllocator {
    match settings.limits {
        Limits::NONE => CAllocator::of(allocator),
        limits => CAllocator::of(leak(Limited::new(allocator, limits, limit::ask))),
    }
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}
