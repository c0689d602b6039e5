//! The heap, and its place in CPython.
//!
//! ```text
//!   without statistics            with statistics
//!
//!   mem ─┐                        mem ─► Counted ─┐
//!        ├─► Pymalloc             obj ─► Counted ─┴─► Pymalloc
//!   obj ─┘      │                                       │
//!               ▼ large, foreign                        ▼ Counted
//!              raw                                     raw
//! ```
//!
//! Up to 3.11 there is one heap, entered by whoever holds the GIL. From 3.12 on each interpreter has
//! its own heap and may have its own GIL.
//!
//! Both domains share the heap, as in CPython: extensions free a block of the one through the
//! other. What is not asked for is not in the stack, so it costs nothing.

use allocator_api::{
    Domain, MemAllocator,
    hooks::{Counted, Counts, Tally},
};
use obmalloc::{Blocks, GilHeld, Heap, KnownArenas, Pools16K, Pymalloc, Stats};
use raw_mem::{MemAlloc, MmapArenas, PageBlocks, RetainingArenas};

use crate::{
    abi::CPython,
    decide::Guard,
    interpreters::{self, PerInterpreter},
    raw_domain::RawDomain,
    rebirth::{self, Below},
    settings::Settings,
};

/// The domains that the heap serves.
pub(crate) const SERVED: [Domain; 2] = [Domain::Mem, Domain::Obj];

/// The largest request that the heap serves, in bytes.
pub(crate) const SMALL: usize = <Pools16K as obmalloc::Geometry>::SIZES.small_threshold;

/// The arenas of the one heap of a CPython with one GIL.
type Arenas = KnownArenas<RetainingArenas<MmapArenas>, PageBlocks, Pools16K>;

/// The one heap of a CPython with one GIL. Its records are on pages of their own: the raw domain may
/// be hooked, and unhooked again while the heap holds on to such a block; and the map of its arenas
/// is large, and nearly empty.
type SmallHeap = Heap<Arenas, PageBlocks, Pools16K>;

/// The heap, installed forever.
pub(crate) struct Installation {
    /// The vtables of [`SERVED`].
    vtables: [MemAllocator; 2],
    heap: &'static (dyn Walk + Sync),
    counters: Option<Counters>,
}

/// The heap's figures.
trait Walk {
    /// Counts what is in use by walking the heap. Returns `None` if another thread may be inside.
    fn stats(&self, python: &CPython) -> Option<Stats>;
}

impl<L> Walk for Pymalloc<GilHeld<SmallHeap>, L> {
    fn stats(&self, python: &CPython) -> Option<Stats> {
        let alone = !python.is_initialized() || python.holds_gil();
        alone.then(|| self.stats())
    }
}

impl<L> Walk for Pymalloc<PerInterpreter, L> {
    /// Without the heaps of other interpreters and threads that are still running.
    fn stats(&self, python: &CPython) -> Option<Stats> {
        let alone = !python.is_initialized() || interpreters::main_is_current();
        // SAFETY: this thread holds the main GIL, or no interpreter runs.
        alone.then(|| unsafe { PerInterpreter.stats() })
    }
}

/// A hook's figures.
trait Count {
    fn counts(&self) -> Counts;
}

impl<A> Count for Counted<A> {
    fn counts(&self) -> Counts {
        self.counts()
    }
}

/// The hooks that count.
struct Counters {
    /// Over the heap, for each of [`SERVED`].
    above: [&'static (dyn Count + Sync); 2],
    /// Between the heap and the layer below.
    below: &'static (dyn Count + Sync),
}

impl Installation {
    /// Makes the heap serve mem and obj.
    pub(crate) fn new(python: &CPython, guard: Guard, settings: &Settings) -> Self {
        let counted = settings.stats.is_some();
        let installation = match guard {
            Guard::Gil => {
                let arenas = RetainingArenas::new(MmapArenas::new());
                let heap = Heap::new(KnownArenas::new(arenas, PageBlocks), PageBlocks);
                // SAFETY: up to 3.11 CPython calls the domains mem and obj with the GIL held, of
                // which there is one.
                let heap = unsafe { GilHeld::new(heap) };
                Self::over(heap, RawDomain::new(python.raw), counted)
            }
            Guard::Interpreters => {
                interpreters::watch(python);
                let installation = Self::over(PerInterpreter, Below::new(python), counted);
                rebirth::watch(python, installation.vtables);
                installation
            }
        };
        installation.put_in_force(python);
        installation
    }

    /// `heap` over `lower`.
    fn over<B, L>(heap: B, lower: L, counted: bool) -> Self
    where
        B: Blocks + Sync + 'static,
        L: MemAlloc + Sync + 'static,
        Pymalloc<B, L>: Walk,
        Pymalloc<B, Counted<L>>: Walk,
    {
        if counted {
            // SAFETY: the raw domain does not allocate from the domains that the heap serves.
            let heap = forever(unsafe { Pymalloc::new(heap, Counted::new(lower, SMALL)) });
            let [mem, obj] = SERVED.map(|_| forever(Counted::new(heap, SMALL)));
            let vtables = [MemAllocator::of(mem), MemAllocator::of(obj)];
            let counters = Some(Counters { above: [mem, obj], below: heap.lower() });
            Self { vtables, heap, counters }
        } else {
            // SAFETY: as above.
            let heap = forever(unsafe { Pymalloc::new(heap, lower) });
            Self { vtables: [MemAllocator::of(heap); 2], heap, counters: None }
        }
    }

    fn put_in_force(&self, python: &CPython) {
        for (domain, vtable) in SERVED.into_iter().zip(&self.vtables) {
            // SAFETY: the interpreter has not begun, so the domain has no block; the vtable's
            // functions and what they use live forever, behind the guard that this version needs.
            unsafe { python.set_allocator(domain, vtable) };
        }
    }

    /// Counts what is in use by walking the heap. Returns `None` if another thread may be inside.
    pub(crate) fn heap_stats(&self, python: &CPython) -> Option<Stats> {
        self.heap.stats(python)
    }

    /// What was asked of each of [`SERVED`], if it was counted.
    pub(crate) fn asked(&self) -> Option<[Counts; 2]> {
        self.counters.as_ref().map(|counters| counters.above.map(Count::counts))
    }

    /// Small requests that the heap sent to the layer below, if they were counted.
    pub(crate) fn sent_below(&self) -> Option<Tally> {
        self.counters.as_ref().map(|counters| counters.below.counts().small)
    }
}

/// A value that is never dropped: CPython may call it for as long as the process lives.
fn forever<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}
