//! What the tests of several modules need.

use core::{
    cell::{Cell, RefCell},
    ptr::NonNull,
};
use std::{
    boxed::Box,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    string::{String, ToString},
    vec::Vec,
};

use raw_mem::{Malloc, MemAlloc};
use testkit::failing::{FailingAlloc, LiveBlocks};
pub(crate) use testkit::failing::{Faults, Plan};

use crate::Recycle;

/// An allocator that knows what it handed out, and fails on demand.
pub(crate) type Below = FailingAlloc<Malloc>;

/// An allocator that does not fail, and its live blocks.
pub(crate) fn below() -> (Below, LiveBlocks) {
    let below = Below::default();
    let live = below.live();
    (below, live)
}

/// An allocator that fails as `plan` says.
pub(crate) fn failing(plan: Plan) -> (Below, Faults) {
    let faults = Faults::new(plan);
    (Below::new(Malloc, faults.clone()), faults)
}

std::thread_local! {
    /// What the next free of a [`Hooked`] of this thread does.
    static ON_FREE: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
}

/// Calls `act` in the next free of a [`Hooked`], once the block is freed.
pub(crate) fn on_next_free(act: impl FnOnce() + 'static) {
    ON_FREE.set(Some(Box::new(act)));
}

/// An allocator whose `free` may use the cache above it, or panic, as [`on_next_free`] says.
pub(crate) struct Hooked(pub(crate) Below);

impl Hooked {
    /// An allocator that does not fail, and its live blocks.
    pub(crate) fn new() -> (Self, LiveBlocks) {
        let (below, live) = below();
        (Self(below), live)
    }
}

// SAFETY: every promise is that of the allocator below.
unsafe impl MemAlloc for Hooked {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        self.0.malloc(size)
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        self.0.calloc(count, size)
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: the caller's promise.
        unsafe { self.0.realloc(ptr, size) }
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: the caller's promise.
        unsafe { self.0.free(ptr) };
        if let Some(act) = ON_FREE.take() {
            act();
        }
    }
}

/// The message that `body` panics with.
pub(crate) fn panic_of(body: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(body)).expect_err("a panic");
    payload.downcast_ref::<&str>().map_or_else(
        || payload.downcast_ref::<String>().expect("a message").clone(),
        ToString::to_string,
    )
}

/// What became of the values of a test. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Rc<Notes>);

#[derive(Debug, Default)]
struct Notes {
    dropped: RefCell<Vec<u32>>,
    recycled: RefCell<Vec<u32>>,
    bombs: RefCell<Vec<u32>>,
}

impl Log {
    /// The values that were dropped since the last call, in order.
    pub(crate) fn dropped(&self) -> Vec<u32> {
        self.0.dropped.take()
    }

    /// The values that were recycled since the last call, in order.
    pub(crate) fn recycled(&self) -> Vec<u32> {
        self.0.recycled.take()
    }

    /// Makes values panic, once each, when they are dropped; n + 100 is value n when it is
    /// recycled, and n + 1000 when it is made.
    pub(crate) fn arm<const N: usize>(&self, bombs: [u32; N]) {
        self.0.bombs.borrow_mut().extend(bombs);
    }

    fn explode(&self, bomb: u32) {
        let mut bombs = self.0.bombs.borrow_mut();
        let before = bombs.len();
        bombs.retain(|&armed| armed != bomb);
        let explodes = bombs.len() < before;
        drop(bombs);
        assert!(!explodes, "bomb {bomb}");
    }

    /// A value that this log follows.
    pub(crate) fn value(&self, id: u32) -> Logged {
        Logged { id, log: Some(self.clone()) }
    }
}

/// A value whose end is written down.
#[derive(Debug)]
pub(crate) struct Logged {
    pub(crate) id: u32,
    /// None for a husk: it owns nothing, so that it may be forgotten.
    log: Option<Log>,
}

impl Logged {
    fn log(&self) -> Log {
        self.log.clone().unwrap_or_else(husk_log)
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        self.log().0.dropped.borrow_mut().push(self.id);
        self.log().explode(self.id);
    }
}

std::thread_local! {
    /// The log of husks, which are made without arguments.
    static HUSKS: Log = Log::default();
    static NEXT: Cell<u32> = const { Cell::new(0) };
}

/// The log of the husks of this test, which count from 0.
pub(crate) fn husk_log() -> Log {
    HUSKS.with(Log::clone)
}

impl Recycle for Logged {
    fn fresh() -> Self {
        let id = NEXT.replace(NEXT.get() + 1);
        husk_log().explode(1000 + id);
        Self { id, log: None }
    }

    fn recycle(&mut self) {
        self.log().0.recycled.borrow_mut().push(self.id);
        self.log().explode(100 + self.id);
    }
}
