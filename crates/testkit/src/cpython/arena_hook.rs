//! A hook that maps and unmaps arenas for CPython. The hook aligns each arena to its size, records
//! the arena in a log, and fails when the test asks for a failure.
//!
//! Without the hook, CPython maps arenas with `mmap`, which aligns them only to 4 KiB. CPython must
//! then align the pools in an arena itself, so most arenas have one pool less than their size
//! allows. With the hook, CPython's arenas have as many pools as ours, and the two can be compared.
//! From version 3.11 on, CPython also calls the hook for the chunks of the interpreter's data
//! stack. The hook allocates these chunks, but does not record them and never lets them fail.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    ffi::c_void,
    ptr::{NonNull, null_mut},
};

use super::vtable::ArenaVtable;
use crate::{failing::Faults, place::ArenaLog};

/// The alignment of requests that are not for arenas, in bytes. The chunks of the interpreter's
/// data stack are such requests.
const PAGE: usize = 4096;

/// The context that CPython passes to the functions of the hook.
#[derive(Debug)]
pub(super) struct ArenaHook {
    arena_size: usize,
    log: ArenaLog,
    faults: Faults,
}

impl ArenaHook {
    /// Creates a hook that is never freed, and returns the C structure that refers to it.
    pub(super) fn leak(arena_size: usize, log: ArenaLog, faults: Faults) -> ArenaVtable {
        let hook = Box::leak(Box::new(Self { arena_size, log, faults }));
        ArenaVtable { ctx: std::ptr::from_mut(hook).cast(), alloc, free }
    }

    fn layout(&self, size: usize) -> Layout {
        let align = if size == self.arena_size { size } else { PAGE };
        Layout::from_size_align(size, align).expect("an arena's size is a power of two")
    }
}

/// Allocates an arena whose bytes are all zero, or a chunk of the interpreter's data stack. Because
/// the arena is zero at first, a pool whose header is still zero was never divided into blocks.
unsafe extern "C" fn alloc(ctx: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: `ctx` is the hook that `leak` created. The hook is never freed or modified.
    let hook = unsafe { &*ctx.cast::<ArenaHook>() };
    let is_arena = size == hook.arena_size;
    if is_arena && hook.faults.call_fails() {
        return null_mut();
    }
    // SAFETY: the size is not 0, because CPython never asks the hook for 0 bytes.
    let Some(memory) = NonNull::new(unsafe { alloc_zeroed(hook.layout(size)) }) else {
        return null_mut();
    };
    if is_arena {
        hook.log.map(memory);
    }
    memory.as_ptr().expose_provenance();
    memory.as_ptr().cast()
}

unsafe extern "C" fn free(ctx: *mut c_void, memory: *mut c_void, size: usize) {
    // When an interpreter ends, it frees every entry of its table of arenas. The pointer is null
    // for an entry that has no arena.
    let Some(memory) = NonNull::new(memory.cast::<u8>()) else { return };
    // SAFETY: `ctx` is the hook that `leak` created. The hook is never freed or modified.
    let hook = unsafe { &*ctx.cast::<ArenaHook>() };
    if size == hook.arena_size {
        hook.log.unmap(memory);
    }
    // SAFETY: CPython frees memory that `alloc` returned, and passes the same size as it passed to
    // `alloc`.
    unsafe { dealloc(memory.as_ptr(), hook.layout(size)) }
}
