//! `OBMALLOC=debug`: every block has guards, which are checked when it is freed.
//!
//! ```text
//!   malloc ─► the free list of the thread's heap
//!                │ always empty, because no thread opens its heap
//!                ▼
//!              is it debug? ─► debug hook ─► one heap behind a lock ─► mappings
//! ```
//!
//! Debug mode adds no code to the fast paths of `malloc` and `free`, because no thread opens its
//! own heap in debug mode. The fast path of `malloc` needs an open heap. Without one, every call
//! takes the slow path, which checks for debug mode. The fast path of `free` handles only blocks of
//! a thread's heap. In debug mode, no such block exists, so `free` also takes its slow path.

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

/// Returns true if the environment variable `OBMALLOC` had the value `debug` at program start.
///
/// The first call, which comes from the first allocation, reads the environment.
#[cold]
pub(crate) fn is_on() -> bool {
    match MODE.load(Relaxed) {
        UNKNOWN => {
            let is_on = is_requested();
            let mode = if is_on { ON } else { OFF };
            // Several threads can find `MODE` unknown at the same time. Each of them then reads the
            // environment variable `OBMALLOC`. All of them find the same value, because the first
            // allocation comes before `main`, and the environment does not change before `main`
            // begins. Each thread tries to store its result in `MODE`. The first thread that
            // succeeds registers the fork handlers, and no other thread does. The handlers lock the
            // heap, so they must run only once for each fork.
            let is_first = MODE.compare_exchange(UNKNOWN, mode, Relaxed, Relaxed).is_ok();
            if is_on && is_first {
                keep_consistent_over_fork();
            }
            is_on
        }
        mode => mode == ON,
    }
}

/// Registers fork handlers that lock the heap during a fork, so that the child's heap is
/// consistent.
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

/// Returns true if the variable `OBMALLOC` requests debug mode.
///
/// Reads the environment without `getenv`, because the C library may not be initialised yet.
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
            // `report::set_up_heap` reports an unknown value.
            return Switch::of(value) == Ok(Switch::Debug);
        }
        // SAFETY: the entry was not the last one.
        entry = unsafe { entry.add(1) };
    }
    false
}

pub(crate) fn alloc(size: usize, align: usize) -> Option<NonNull<u8>> {
    if align <= one_heap::ALIGN {
        return HOOK.malloc(size);
    }
    HOOK.malloc_aligned(size, align)
}

pub(crate) fn alloc_zeroed(size: usize, align: usize) -> Option<NonNull<u8>> {
    if align <= one_heap::ALIGN {
        return HOOK.calloc(1, size);
    }
    let block = HOOK.malloc_aligned(size, align)?;
    // SAFETY: the new block has that many bytes.
    unsafe { block.write_bytes(0, size) };
    Some(block)
}

/// # Safety
///
/// - `ptr` must point to a live block that this library has allocated.
pub(crate) unsafe fn free(ptr: NonNull<u8>) {
    // SAFETY: the block is live (contract). The hook checks this.
    unsafe { HOOK.free(Some(ptr)) };
}

/// # Safety
///
/// - `ptr` must point to a live block that this library has allocated.
/// - If the function returns a block, the caller must use that block and no longer use `ptr`.
pub(crate) unsafe fn resize(ptr: NonNull<u8>, size: usize) -> Option<NonNull<u8>> {
    // SAFETY: the block is live (contract). The hook checks this.
    unsafe { HOOK.realloc(Some(ptr), size) }
}

/// # Safety
///
/// - `ptr` must point to a live block that this library has allocated.
pub(crate) unsafe fn size(ptr: NonNull<u8>) -> usize {
    // SAFETY: the block is live (contract). The hook checks this.
    unsafe { HOOK.size(ptr) }
}
