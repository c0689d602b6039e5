//! An allocator that calls the program while the table of traced blocks grows.

#![cfg(not(miri))]

use std::{
    cell::Cell,
    ptr::NonNull,
    sync::{
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::channel,
    },
    thread,
    time::Duration,
};

use allocator_api::{
    Domain, Global,
    hooks::{Trace, Traces},
    raw_mem::{Malloc, MemAlloc},
};

static TRACES: Traces = Traces::new();

static CALLS: AtomicUsize = AtomicUsize::new(0);

/// A request of at least this many bytes makes the allocator call the program.
const LARGE: usize = 10_000;

thread_local! {
    static IS_CALLING: Cell<bool> = const { Cell::new(false) };
}

/// An allocator that asks for the traced memory before it serves a large request.
#[derive(Clone, Copy, Debug)]
struct Asking;

fn ask(size: usize) {
    if size >= LARGE && !IS_CALLING.replace(true) {
        let _ = (TRACES.total(), TRACES.places(), TRACES.snapshot());
        CALLS.fetch_add(1, Relaxed);
        IS_CALLING.set(false);
    }
}

// SAFETY: `Malloc` serves every request.
unsafe impl MemAlloc for Asking {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        ask(size);
        Malloc.malloc(size)
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        ask(size);
        Malloc.calloc(count, size)
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        ask(size);
        // SAFETY: the contract is the same.
        unsafe { Malloc.realloc(ptr, size) }
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: the contract is the same.
        unsafe { Malloc.free(ptr) };
    }

    unsafe fn usable_size(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: the contract is the same.
        unsafe { Malloc.usable_size(ptr) }
    }
}

#[global_allocator]
static GLOBAL: Global<Trace<Asking>> = Global::new(Trace::new(Asking, Domain::Raw, &TRACES));

#[test]
fn the_table_can_be_asked_for_while_it_grows() {
    let (done, wait) = channel();
    thread::spawn(move || {
        TRACES.start(0);
        let blocks: Vec<_> = (0..20_000_u64).map(Box::new).collect();
        assert!(TRACES.total().current.blocks >= blocks.len());
        TRACES.stop();
        done.send(CALLS.load(Relaxed)).unwrap();
    });
    let calls = wait.recv_timeout(Duration::from_secs(120)).expect("nothing waits for itself");
    assert!(calls > 3, "the table has grown {calls} times");
}
