//! A source of arenas for targets without the system calls of Unix. It allocates arenas from the
//! standard library's system allocator, which returns blocks of any requested alignment.

use core::{alloc::Layout, ptr::NonNull};
use std::alloc::{GlobalAlloc, System};

use crate::{ArenaSize, ArenaSource, MapError};

/// A source that allocates arenas from the system allocator of the standard library.
///
/// On this target the source cannot purge pages. Dropping the source does not free its arenas: an
/// arena that has not been passed to `unmap` stays allocated.
#[derive(Debug, Default)]
pub struct MmapArenas(());

impl MmapArenas {
    /// Creates a source that has mapped nothing yet.
    pub const fn new() -> Self {
        Self(())
    }
}

/// Returns the layout of an arena: its size is also its alignment.
fn layout(size: ArenaSize) -> Option<Layout> {
    Layout::from_size_align(size.bytes(), size.bytes()).ok()
}

// SAFETY: each arena is a separate block of the system allocator, whose size and alignment are both
// the arena's size.
unsafe impl ArenaSource for MmapArenas {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        // SAFETY: an arena has at least 64 bytes, so the size of the layout is not 0.
        let arena = layout(size).map(|layout| unsafe { System.alloc(layout) });
        arena.and_then(NonNull::new).ok_or(MapError::Exhausted { size })
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        if let Some(layout) = layout(size) {
            // SAFETY: `map` allocated the arena with the same layout, and the arena is not used any
            // more (contract of `unmap`).
            unsafe { System.dealloc(arena.as_ptr(), layout) };
        }
    }
}
