//! A hook that allocates arenas for CPython, logs them, and fails on demand.
//!
//! CPython calls the arena hook to allocate and free its arenas. This hook aligns each arena to the
//! arena's own size, so the first pool begins at the start of the arena. Without the hook, an arena
//! is aligned only to 4 KiB. CPython then skips the bytes before the first address that is aligned
//! for a pool, so the arena usually has room for one pool less.
//!
//! Since 3.11, CPython also calls the hook to allocate its data stack. These requests are not
//! logged and never fail.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    ffi::c_void,
    ptr::{NonNull, null_mut},
};

use super::vtable::ArenaVtable;
use crate::{failing::Faults, place::ArenaLog};

/// The alignment in bytes of requests that are not for arenas.
const PAGE: usize = 4096;

#[derive(Debug)]
pub(super) struct ArenaHook {
    arena_size: usize,
    log: ArenaLog,
    faults: Faults,
}

impl ArenaHook {
    pub(super) fn leak(arena_size: usize, log: ArenaLog, faults: Faults) -> ArenaVtable {
        let hook = Box::leak(Box::new(Self { arena_size, log, faults }));
        ArenaVtable { ctx: std::ptr::from_mut(hook).cast(), alloc, free }
    }

    fn layout(&self, size: usize) -> Layout {
        let align = if size == self.arena_size { size } else { PAGE };
        Layout::from_size_align(size, align).expect("an arena's size is a power of two")
    }
}

/// Arenas are zeroed, so that a zero header marks a pool that was never used.
unsafe extern "C" fn alloc(ctx: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: `ctx` is the hook that `leak` created, which is never freed or modified.
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
    // When CPython ends, it frees every entry of its arena table, including null pointers.
    let Some(memory) = NonNull::new(memory.cast::<u8>()) else { return };
    // SAFETY: `ctx` is the hook that `leak` created, which is never freed or modified.
    let hook = unsafe { &*ctx.cast::<ArenaHook>() };
    if size == hook.arena_size {
        hook.log.unmap(memory);
    }
    // SAFETY: CPython frees memory that `alloc` returned, with the size that it requested.
    unsafe { dealloc(memory.as_ptr(), hook.layout(size)) }
}
