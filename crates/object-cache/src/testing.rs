//! Helpers for the unit tests of several modules.

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

pub(crate) type Below = FailingAlloc<Malloc>;

/// Returns an allocator that does not fail, and a counter of its live blocks.
pub(crate) fn below() -> (Below, LiveBlocks) {
    let below = Below::default();
    let live = below.live();
    (below, live)
}

pub(crate) fn failing(plan: Plan) -> (Below, Faults) {
    let faults = Faults::new(plan);
    (Below::new(Malloc, faults.clone()), faults)
}

std::thread_local! {
    static ON_FREE: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
}

/// Makes the next `free` of a [`Hooked`] on this thread call `act` after it has freed its block.
pub(crate) fn on_next_free(act: impl FnOnce() + 'static) {
    ON_FREE.set(Some(Box::new(act)));
}

/// An allocator whose `free` calls the closure that [`on_next_free`] has set.
pub(crate) struct Hooked(pub(crate) Below);

impl Hooked {
    pub(crate) fn new() -> (Self, LiveBlocks) {
        let (below, live) = below();
        (Self(below), live)
    }
}

// SAFETY: every call goes to the wrapped allocator, which implements `MemAlloc`.
unsafe impl MemAlloc for Hooked {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        self.0.malloc(size)
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        self.0.calloc(count, size)
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: the block came from the wrapped allocator (contract of `realloc`).
        unsafe { self.0.realloc(ptr, size) }
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: the block came from the wrapped allocator (contract of `free`).
        unsafe { self.0.free(ptr) };
        if let Some(act) = ON_FREE.take() {
            act();
        }
    }
}

pub(crate) fn panic_of(body: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(body)).expect_err("a panic");
    payload.downcast_ref::<&str>().map_or_else(
        || payload.downcast_ref::<String>().expect("a message").clone(),
        ToString::to_string,
    )
}

/// A log of the values that a test has dropped. Clones share the same log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Rc<Entries>);

#[derive(Debug, Default)]
struct Entries {
    dropped: RefCell<Vec<u32>>,
    bombs: RefCell<Vec<u32>>,
}

impl Log {
    /// Returns the values that were dropped since the last call, in order.
    pub(crate) fn dropped(&self) -> Vec<u32> {
        self.0.dropped.take()
    }

    pub(crate) fn arm<const N: usize>(&self, bombs: [u32; N]) {
        self.0.bombs.borrow_mut().extend(bombs);
    }

    pub(crate) fn value(&self, id: u32) -> Logged {
        Logged { id, log: self.clone() }
    }
}

#[derive(Debug)]
pub(crate) struct Logged {
    pub(crate) id: u32,
    log: Log,
}

impl Drop for Logged {
    fn drop(&mut self) {
        let Entries { dropped, bombs } = &*self.log.0;
        dropped.borrow_mut().push(self.id);
        let armed = bombs.borrow().contains(&self.id);
        assert!(!armed, "bomb {}", self.id);
    }
}
