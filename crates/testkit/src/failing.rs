//! Sources and allocators that count their calls and fail when told to.
//!
//! ```text
//!   test ──── Faults ◄──── FailingArenas { source }   inside the heap
//!              shared ◄─── FailingAlloc  { lower }    below the heap
//! ```
//!
//! The test keeps a handle on the [`Faults`] while the heap owns the rest.

use std::{
    collections::BTreeSet,
    ffi::CStr,
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use raw_mem::{Advice, AdviseError, ArenaSize, ArenaSource, MapError, MemAlloc};

use crate::place::ArenaLog;

/// Which calls fail. The first call is number 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plan {
    /// None.
    #[default]
    Never,
    /// This one alone.
    Nth(usize),
    /// This one and all after it.
    From(usize),
    /// Every one whose number is a multiple of this.
    Every(usize),
}

impl Plan {
    fn fails(self, call: usize) -> bool {
        match self {
            Self::Never => false,
            Self::Nth(nth) => call == nth,
            Self::From(first) => call >= first,
            Self::Every(step) => call.is_multiple_of(step),
        }
    }
}

/// How often something was asked for, and how often it was refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests for memory.
    pub calls: usize,
    /// Requests that the plan refused.
    pub failures: usize,
}

/// A [`Plan`] and what came of it. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<(Plan, Tally)>>);

impl Faults {
    /// Nothing counted yet, and failures as `plan` says.
    pub fn new(plan: Plan) -> Self {
        Self(Arc::new(Mutex::new((plan, Tally::default()))))
    }

    /// Follows `plan` from now on, and counts from 0 again.
    pub fn restart(&self, plan: Plan) {
        *self.state() = (plan, Tally::default());
    }

    /// The counts since the start, or the last [`restart`](Self::restart).
    pub fn tally(&self) -> Tally {
        self.state().1
    }

    /// Counts a call, and says whether it is to fail.
    pub fn strike(&self) -> bool {
        let (plan, tally) = &mut *self.state();
        tally.calls += 1;
        let fails = plan.fails(tally.calls);
        tally.failures += usize::from(fails);
        fails
    }

    fn state(&self) -> MutexGuard<'_, (Plan, Tally)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An arena source that counts calls to [`map`](ArenaSource::map), fails those that its
/// [`Faults`] name, and keeps an [`ArenaLog`], so that only what is mapped can be unmapped.
#[derive(Debug, Default)]
pub struct FailingArenas<S> {
    source: S,
    faults: Faults,
    log: ArenaLog,
}

impl<S> FailingArenas<S> {
    /// `source`, failing as `faults` says, its arenas entered in `log`.
    pub fn new(source: S, faults: Faults, log: ArenaLog) -> Self {
        Self { source, faults, log }
    }
}

// SAFETY: memory is the inner source's, unchanged; a refusal hands out nothing.
unsafe impl<S: ArenaSource> ArenaSource for FailingArenas<S> {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        if self.faults.strike() {
            return Err(MapError::Exhausted { size });
        }
        let arena = self.source.map(size)?;
        self.log.map(arena);
        Ok(arena)
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        self.log.unmap(arena);
        // SAFETY: the caller's promise.
        unsafe { self.source.unmap(arena, size) }
    }

    unsafe fn advise(
        &mut self,
        start: NonNull<u8>,
        len: usize,
        advice: Advice,
    ) -> Result<(), AdviseError> {
        // SAFETY: the caller's promise.
        unsafe { self.source.advise(start, len, advice) }
    }

    fn name(&mut self, name: &'static CStr) {
        self.source.name(name);
    }
}

/// An allocator that counts its requests for memory (`malloc`, `calloc` and `realloc`), fails
/// those that its [`Faults`] name, and sees to it that it gets back only what it handed out.
/// Clones are one and the same allocator.
#[derive(Clone, Debug, Default)]
pub struct FailingAlloc<A> {
    alloc: A,
    faults: Faults,
    live: Arc<Mutex<BTreeSet<usize>>>,
}

impl<A> FailingAlloc<A> {
    /// `alloc`, failing as `faults` says.
    pub fn new(alloc: A, faults: Faults) -> Self {
        Self { alloc, faults, live: Arc::default() }
    }

    /// The blocks that are live now, as a handle that stays current.
    pub fn live(&self) -> LiveBlocks {
        LiveBlocks(Arc::clone(&self.live))
    }

    fn note(&self, given: Option<NonNull<u8>>) -> Option<NonNull<u8>> {
        if let Some(block) = given {
            assert!(lock(&self.live).insert(block.addr().get()), "{block:p} is handed out twice");
        }
        given
    }

    fn forget(&self, old: Option<NonNull<u8>>) {
        if let Some(block) = old {
            assert!(lock(&self.live).remove(&block.addr().get()), "{block:p} is not from here");
        }
    }
}

/// The live blocks of a [`FailingAlloc`].
#[derive(Clone, Debug)]
pub struct LiveBlocks(Arc<Mutex<BTreeSet<usize>>>);

impl LiveBlocks {
    /// How many there are.
    pub fn count(&self) -> usize {
        lock(&self.0).len()
    }

    /// Whether `block` is one of them.
    pub fn contains(&self, block: NonNull<u8>) -> bool {
        lock(&self.0).contains(&block.addr().get())
    }
}

fn lock(live: &Mutex<BTreeSet<usize>>) -> MutexGuard<'_, BTreeSet<usize>> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

// SAFETY: memory is the inner allocator's, unchanged; a refusal hands out nothing and changes
// nothing.
unsafe impl<A: MemAlloc> MemAlloc for FailingAlloc<A> {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        if self.faults.strike() { None } else { self.note(self.alloc.malloc(size)) }
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        if self.faults.strike() { None } else { self.note(self.alloc.calloc(count, size)) }
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        if self.faults.strike() {
            return None;
        }
        // SAFETY: the caller's promise.
        let block = unsafe { self.alloc.realloc(ptr, size) }?;
        self.forget(ptr);
        self.note(Some(block))
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        self.forget(ptr);
        // SAFETY: the caller's promise, and it is one of ours.
        unsafe { self.alloc.free(ptr) }
    }
}

#[cfg(test)]
mod tests {
    use raw_mem::{Malloc, MallocArenas};

    use super::*;

    fn answers(plan: Plan) -> Vec<bool> {
        let faults = Faults::new(plan);
        (0..5).map(|_| faults.strike()).collect()
    }

    #[test]
    fn the_calls_that_a_plan_names_fail_and_no_others() {
        assert_eq!(answers(Plan::Never), [false; 5]);
        assert_eq!(answers(Plan::Nth(2)), [false, true, false, false, false]);
        assert_eq!(answers(Plan::From(3)), [false, false, true, true, true]);
        assert_eq!(answers(Plan::Every(2)), [false, true, false, true, false]);
    }

    #[test]
    fn a_clone_of_the_faults_sees_and_steers_the_source() {
        let (faults, log) = (Faults::new(Plan::From(2)), ArenaLog::default());
        let mut arenas = FailingArenas::new(MallocArenas::new(Malloc), faults.clone(), log.clone());
        let size = ArenaSize::new(4096).unwrap();
        let arena = arenas.map(size).unwrap();
        assert_eq!(arenas.map(size), Err(MapError::Exhausted { size }));
        assert_eq!(faults.tally(), Tally { calls: 2, failures: 1 });
        faults.restart(Plan::Never);
        let other = arenas.map(size).unwrap();
        assert_eq!(log.mapped(), 2);
        // SAFETY: both are mapped and unused.
        unsafe {
            arenas.unmap(arena, size);
            arenas.unmap(other, size);
        }
        assert_eq!(log.mapped(), 0);
    }

    #[test]
    #[should_panic(expected = "is not from here")]
    fn a_block_of_another_allocator_is_found_on_free() {
        let foreign = Malloc.malloc(8);
        // SAFETY: the allocator refuses the block before anything is done with it.
        unsafe { FailingAlloc::new(Malloc, Faults::default()).free(foreign) }
    }

    #[test]
    fn a_refused_reallocation_leaves_the_block_live() {
        let faults = Faults::new(Plan::Nth(2));
        let alloc = FailingAlloc::new(Malloc, faults.clone());
        let block = alloc.malloc(8).unwrap();
        // SAFETY: the block is live, and stays so as the request fails.
        assert_eq!(unsafe { alloc.realloc(Some(block), 16) }, None);
        assert!(alloc.live().contains(block));
        // SAFETY: the block is live and not used again.
        unsafe { alloc.free(Some(block)) }
        assert_eq!(alloc.live().count(), 0);
    }
}
