//! The arenas of a CPython, aligned to their size, counted, and failing on demand.
//!
//! CPython takes arenas from `mmap`, which aligns them to 4 KiB and so costs most of them a pool.
//! With this hook they have all their pools, as ours have. From 3.11 on the same hook is asked for
//! the chunks of the interpreter's data stack; they are served, but not counted.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    ffi::c_void,
    ptr::{NonNull, null_mut},
};

use super::vtable::ArenaVtable;
use crate::{failing::Faults, place::ArenaLog};

/// The alignment of what is no arena.
const PAGE: usize = 4096;

/// What the hook's functions find behind their `ctx`.
#[derive(Debug)]
pub(super) struct ArenaHook {
    arena_size: usize,
    log: ArenaLog,
    faults: Faults,
}

impl ArenaHook {
    /// The C structure of a hook that lives as long as the process.
    pub(super) fn leak(arena_size: usize, log: ArenaLog, faults: Faults) -> ArenaVtable {
        let hook = Box::leak(Box::new(Self { arena_size, log, faults }));
        ArenaVtable { ctx: std::ptr::from_mut(hook).cast(), alloc, free }
    }

    fn layout(&self, size: usize) -> Layout {
        let align = if size == self.arena_size { size } else { PAGE };
        Layout::from_size_align(size, align).expect("an arena's size is a power of two")
    }
}

/// Arenas are zeroed, so that a pool that was never carved can be told by its header.
unsafe extern "C" fn alloc(ctx: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: `ctx` is the hook that `leak` made, which is only read.
    let hook = unsafe { &*ctx.cast::<ArenaHook>() };
    let is_arena = size == hook.arena_size;
    if is_arena && hook.faults.strike() {
        return null_mut();
    }
    // SAFETY: no caller asks for 0 bytes.
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
    // An interpreter that ends gives back every entry of its table, the empty ones too.
    let Some(memory) = NonNull::new(memory.cast::<u8>()) else { return };
    // SAFETY: `ctx` is the hook that `leak` made, which is only read.
    let hook = unsafe { &*ctx.cast::<ArenaHook>() };
    if size == hook.arena_size {
        hook.log.unmap(memory);
    }
    // SAFETY: CPython gives back what `alloc` handed out, with the same size.
    unsafe { dealloc(memory.as_ptr(), hook.layout(size)) }
}
