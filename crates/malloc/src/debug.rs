//! `OBMALLOC=debug`: every block has guards, which are checked when it is freed.
//!
//! ```text
//!   malloc ─► the free list of the thread's heap
//!                │ always empty, because no thread opens its heap
//!                ▼
//!              is it debug? ─► debug hook ─► one heap behind a lock ─► mappings
//! ```
//!
//! A thread's heap is opened by a slow path, which asks this module first. Its memory is unknown to
//! the heaps of the threads, so freeing it takes the path of foreign memory. If the mode is off,
//! it therefore costs nothing where blocks are allocated and freed.

mod one_heap;

use std::{
    ffi::{CStr, c_char},
    ptr::NonNull,
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

use allocator_api::{Domain, hooks::Debug};
use host::Switch;
use raw_mem::MemAlloc;

use self::one_heap::OneHeap;

const VARIABLE: &[u8] = b"OBMALLOC=";

const UNKNOWN: u8 = 0;
const OFF: u8 = 1;
const ON: u8 = 2;

static MODE: AtomicU8 = AtomicU8::new(UNKNOWN);

static HOOK: Debug<OneHeap> = Debug::new(OneHeap::new(), Domain::Raw);

/// Returns true if the environment variable `OBMALLOC` had the value `debug` at the start.
///
/// The first call, which comes from the first allocation, reads the environment.
#[cold]
pub(crate) fn is_on() -> bool {
    match MODE.load(Relaxed) {
        UNKNOWN => {
            let is_on = is_requested();
            // The environment does not change until the program runs, so every first call finds
            // the same.
            MODE.store(if is_on { ON } else { OFF }, Relaxed);
            if is_on {
                keep_consistent_over_fork();
            }
            is_on
        }
        mode => mode == ON,
    }
}

/// Lets every fork wait until no other thread is inside of the heap.
fn keep_consistent_over_fork() {
    extern "C" fn before() {
        HOOK.below().lock();
    }
    extern "C" fn after() {
        HOOK.below().unlock();
    }
    // SAFETY: the functions exist as long as this library, which is never unloaded.
    unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) };
}

/// Looks for the variable without the C library, which may not have been initialised yet.
fn is_requested() -> bool {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: `getauxval` reads a constant of the process.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return false;
    }
    // SAFETY: no other thread changes the environment before the program runs.
    let mut entry = unsafe { environ };
    while !entry.is_null() {
        // SAFETY: the array ends with a null pointer, which has not been reached.
        let text = unsafe { entry.read() };
        if text.is_null() {
            break;
        }
        // SAFETY: every other entry is a C string.
        if let Some(value) = unsafe { CStr::from_ptr(text) }.to_bytes().strip_prefix(VARIABLE) {
            // Whoever reads the other settings also says that this one has an unknown value.
            return Switch::of(value) == Ok(Switch::Debug);
        }
        // SAFETY: the entry was not the last one.
        entry = unsafe { entry.add(1) };
    }
    false
}

pub(crate) fn alloc(size: usize, align: usize) -> Option<NonNull<u8>> {
    HOOK.malloc_aligned(size, align)
}

pub(crate) fn alloc_zeroed(size: usize, align: usize) -> Option<NonNull<u8>> {
    if align <= 16 {
        return HOOK.calloc(1, size);
    }
    let block = HOOK.malloc_aligned(size, align)?;
    // SAFETY: the new block has that many bytes.
    unsafe { block.write_bytes(0, size) };
    Some(block)
}

/// # Safety
///
/// - The program must use `ptr` as a live block.
pub(crate) unsafe fn free(ptr: NonNull<u8>) {
    // SAFETY: the hook checks that this is a block (contract).
    unsafe { HOOK.free(Some(ptr)) };
}

/// # Safety
///
/// - The program must use `ptr` as a live block, and use only the result afterwards.
pub(crate) unsafe fn resize(ptr: NonNull<u8>, size: usize) -> Option<NonNull<u8>> {
    // SAFETY: the hook checks that this is a block (contract).
    unsafe { HOOK.realloc(Some(ptr), size) }
}

/// # Safety
///
/// - The program must use `ptr` as a live block.
pub(crate) unsafe fn size(ptr: NonNull<u8>) -> usize {
    // SAFETY: the hook checks that this is a block (contract).
    unsafe { HOOK.size(ptr) }
}
