//! A hook that records which blocks are in use and where each was allocated.
//!
//! ```text
//!   the program ──► Trace ──► the allocator below
//!                     │
//!                   Traces: a table of blocks in use, figures by domain and by place
//! ```
//!
//! The hook keeps its records in tables that are allocated with the global allocator. If the hook
//! is part of the global allocator, each allocation for a table calls the hook again. To avoid
//! infinite recursion, the hook does not trace the requests that a thread makes while it is reading
//! or updating the tables.

mod inside;
mod place;
mod snapshot;
mod table;

use core::{
    cell::Cell,
    fmt::Write,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use raw_mem::{MemAlloc, Output};
use sync::Mutex;

use self::{
    inside::{enter, unless_set, untraced},
    place::{MOST, capture},
    table::{Block, Table},
};
pub use self::{
    place::Place,
    snapshot::{Amount, Difference, Figures, Snapshot, Traced},
};
use super::debug::Host;
use crate::Domain;

/// The value of [`Traces::frames`] while nothing is traced.
const OFF: usize = usize::MAX;

std::thread_local! {
    /// The block that the thread is freeing or resizing, which the table no longer contains.
    static REMOVED: Cell<Option<(usize, Block)>> = const { Cell::new(None) };

    /// True while the thread has locked the table of a [`Traces`].
    static HAS_LOCKED: Cell<bool> = const { Cell::new(false) };
}

/// The blocks in use of all [`Trace`] hooks that refer to this value.
///
/// Nothing is traced before [`start`](Self::start). The functions that return figures cover only
/// the blocks that were allocated since then.
///
/// A program must not fork while tracing is on. Each traced request locks the table of blocks for a
/// short time. If another thread holds this lock during the fork, the child's copy of the lock
/// stays locked forever, because only the forking thread exists in the child.
///
/// To grow, the table of blocks allocates memory while it is locked. The allocator may then run a
/// callback of the program, for example before it refuses the request. If this callback uses
/// `Traces`, it cannot access the locked table: it gets empty figures, and [`stop`](Self::stop)
/// forgets no block.
#[derive(Debug)]
pub struct Traces {
    table: Mutex<Table>,
    /// The number of calls to store for each block, or [`OFF`].
    frames: AtomicUsize,
}

impl Traces {
    sync::const_unless_model! {
        /// Creates an empty table.
        pub fn new() -> Self {
            Self { table: Mutex::new(Table::new()), frames: AtomicUsize::new(OFF) }
        }
    }

    /// Starts tracing. Each new block is stored with the last `frames` calls that led to its
    /// allocation.
    ///
    /// If `frames` is 0 or the feature `backtrace` is off, all places are unknown.
    pub fn start(&self, frames: usize) {
        #[allow(clippy::unnecessary_min_or_max, reason = "`MOST` is 0 without the feature")]
        self.frames.store(frames.min(MOST), Relaxed);
    }

    /// Stops tracing and forgets all blocks.
    pub fn stop(&self) {
        self.frames.store(OFF, Relaxed);
        self.with(Table::clear);
    }

    /// Returns the memory in use of all domains, and the most that was in use at one time.
    pub fn total(&self) -> Figures {
        self.with(|table| table.total())
    }

    /// Returns the memory in use of one domain, and the most that was in use at one time.
    pub fn domain(&self, domain: Domain) -> Figures {
        self.with(|table| table.domain(domain))
    }

    /// Returns the memory in use of each place, and the most that was in use at one time.
    pub fn places(&self) -> Vec<(Place, Figures)> {
        self.with(|table| table.places())
    }

    /// Returns the place that allocated the block at `address`, if the block is traced.
    pub fn place_of(&self, address: usize) -> Option<Place> {
        self.with(|table| table.place_of_block(address))
    }

    /// Sets every peak to the memory in use now.
    pub fn reset_peaks(&self) {
        self.with(Table::reset_peaks);
    }

    /// Returns the number of blocks that are not traced, because there was no memory for their
    /// trace.
    pub fn untraced(&self) -> u64 {
        self.with(|table| table.untraced())
    }

    /// Returns all blocks in use. O(blocks).
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.with(|table| table.blocks()))
    }

    /// Prints a summary of the blocks in use to stderr.
    ///
    /// At the end of `main`, these are the blocks that were never freed.
    pub fn print(&self) {
        let snapshot = self.snapshot();
        // Writing to stderr reports no errors.
        let _ = write!(Output::stderr(), "{snapshot}");
    }

    /// Calls `visit` with the table of blocks, and returns the result.
    ///
    /// Allocations by `visit` are not traced. If this thread already holds the lock of a table, the
    /// function does not call `visit`, and returns the default value of `R`.
    fn with<R: Default>(&self, visit: impl FnOnce(&mut Table) -> R) -> R {
        untraced(|| self.locked(visit).unwrap_or_default())
    }

    /// Locks the table of blocks and calls `visit` with it. Returns `None` if this thread already
    /// holds the lock of a table, in this or in another `Traces`, because waiting for a second lock
    /// could deadlock.
    fn locked<R>(&self, visit: impl FnOnce(&mut Table) -> R) -> Option<R> {
        unless_set(&HAS_LOCKED, || visit(&mut sync::lock(&self.table)))
    }
}

impl Default for Traces {
    fn default() -> Self {
        Self::new()
    }
}

/// If a debug hook has `Traces` as its host, its error reports name the place that allocated the
/// block.
///
/// The `Trace` hook must wrap the debug hook, so that both know a block by the same address. The
/// debug hook puts a header before each block. A `Trace` hook below the debug hook would record the
/// address of the header. An error report, which looks up the address that the program uses, would
/// then not find the block.
impl Host for Traces {
    fn write_place(&self, out: &mut Output<'_>, ptr: *const u8) {
        // The thread that found the error may already hold the lock of the table.
        let place = || {
            sync::try_lock(&self.table).and_then(|table| match REMOVED.get() {
                Some((address, block)) if address == ptr.addr() => Some(table.place(block)),
                _ => table.place_of_block(ptr.addr()),
            })
        };
        untraced(|| {
            if let Some(place) = place() {
                let _ = out.write_str("Memory block allocated at (most recent call first):\n");
                out.flush();
                // Looking up names allocates memory, so it can fail if the heap is corrupted.
                let _ = writeln!(out, "{place}");
            }
        });
    }
}

/// A hook that traces the blocks in use. CPython: `tracemalloc`.
///
/// While tracing is off, the hook adds one load and one branch to each request. While tracing is
/// on, each request takes a lock, and the trace of each live block needs 38 to 75 bytes.
/// The [crate's page](crate) shows measurements.
///
/// If a traced domain passes a request on to another traced domain, the request is traced only
/// once.
///
/// ```
/// use allocator_api::{Domain, Global, hooks::{Trace, Traces}, raw_mem::Malloc};
///
/// static TRACES: Traces = Traces::new();
///
/// #[global_allocator]
/// static GLOBAL: Global<Trace<Malloc>> = Global::new(Trace::new(Malloc, Domain::Raw, &TRACES));
///
/// TRACES.start(0);
/// let before = TRACES.snapshot();
/// let block = Box::new([0_u8; 1000]);
/// let changes = TRACES.snapshot().since(&before);
/// assert_eq!((changes[0].bytes, changes[0].blocks), (1000, 1));
/// assert!(TRACES.total().peak_bytes >= 1000);
/// # drop(block);
/// # TRACES.stop();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Trace<A> {
    below: A,
    domain: Domain,
    traces: &'static Traces,
}

impl<A> Trace<A> {
    /// Wraps `below`, which serves `domain`.
    pub const fn new(below: A, domain: Domain, traces: &'static Traces) -> Self {
        Self { below, domain, traces }
    }

    /// Returns the number of calls to store, or `None` while nothing is traced.
    #[inline]
    fn frames(&self) -> Option<usize> {
        Some(self.traces.frames.load(Relaxed)).filter(|frames| *frames != OFF)
    }

    /// Adds a new block. The thread must be [inside](enter).
    fn add(&self, block: Option<NonNull<u8>>, size: usize, frames: usize) {
        let Some(block) = block else { return };
        let mut calls = [0; MOST];
        let found = capture(frames, &mut calls);
        let calls = &calls[..found];
        self.traces.locked(|table| table.add(block.addr().get(), size, self.domain, calls));
    }

    /// Removes a block from the table.
    ///
    /// The calling thread must be [inside](enter) the hook, so that its own requests are not
    /// traced.
    ///
    /// The caller must remove a block from the table before it frees or resizes the block. Once the
    /// block is free, another thread can allocate a new block at the same address and add it to the
    /// table. A late removal would remove the new block instead of the old one.
    ///
    /// The removed block is stored in the thread-local [`REMOVED`], so that an error report can
    /// still name the place that allocated the block. After the caller has freed or resized the
    /// block, it must set `REMOVED` to `None`, because a new block may then have the same address.
    fn remove(&self, block: NonNull<u8>) -> Option<Block> {
        let address = block.addr().get();
        let removed = self.traces.locked(|table| table.remove(address)).flatten();
        REMOVED.set(removed.map(|block| (address, block)));
        removed
    }

    fn trace(&self, size: usize, below: impl Fn() -> Option<NonNull<u8>>) -> Option<NonNull<u8>> {
        let Some(frames) = self.frames() else { return below() };
        let traced = enter(|| {
            let block = below();
            self.add(block, size, frames);
            block
        });
        traced.unwrap_or_else(below)
    }
}

// SAFETY: the hook forwards every request unchanged to `below`, which implements `MemAlloc`.
unsafe impl<A: MemAlloc> MemAlloc for Trace<A> {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        self.trace(size, || self.below.malloc(size))
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        self.trace(count.saturating_mul(size), || self.below.calloc(count, size))
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: a live block of this hook is one of `below` (contract of `realloc`).
        let below = || unsafe { self.below.realloc(ptr, size) };
        let (Some(old), Some(frames)) = (ptr, self.frames()) else {
            return self.trace(size, below);
        };
        let traced = enter(|| {
            let removed = self.remove(old);
            let moved = below();
            match (moved, removed) {
                (Some(_), _) => self.add(moved, size, frames),
                (None, Some(block)) => {
                    self.traces.locked(|table| table.insert(old.addr().get(), block));
                }
                (None, None) => {}
            }
            REMOVED.set(None);
            moved
        });
        traced.unwrap_or_else(below)
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: a live block of this hook is one of `below` (contract of `free`).
        let below = || unsafe { self.below.free(ptr) };
        let (Some(block), Some(_)) = (ptr, self.frames()) else { return below() };
        let traced = enter(|| {
            self.remove(block);
            below();
            REMOVED.set(None);
        });
        traced.unwrap_or_else(below);
    }

    unsafe fn usable_size(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: a live block of this hook is one of `below` (contract).
        unsafe { self.below.usable_size(ptr) }
    }

    fn supports_alignment(&self) -> bool {
        self.below.supports_alignment()
    }

    fn malloc_aligned(&self, size: usize, align: usize) -> Option<NonNull<u8>> {
        self.trace(size, || self.below.malloc_aligned(size, align))
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
