//! A source that allocates arenas from the standard library's allocator, for non-Unix targets.

use core::{alloc::Layout, ptr::NonNull};
use std::alloc::{GlobalAlloc, System};

use crate::{ArenaSize, ArenaSource, LargeMapping, MapError};

/// A source that allocates arenas from the standard library's allocator.
///
/// The source cannot purge pages, and dropping it does not free its arenas.
#[derive(Debug, Default)]
pub struct MmapArenas(());

impl MmapArenas {
    /// Creates a source that has mapped nothing yet.
    pub const fn new() -> Self {
        Self(())
    }
}

fn layout(size: ArenaSize) -> Option<Layout> {
    Layout::from_size_align(size.bytes(), size.bytes()).ok()
}

// SAFETY: each arena is a separate block whose size and alignment are the arena's size.
unsafe impl ArenaSource for MmapArenas {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        // SAFETY: an arena has at least 64 bytes, so the size of the layout is not 0.
        let arena = layout(size).map(|layout| unsafe { System.alloc(layout) });
        arena.and_then(NonNull::new).ok_or(MapError::Exhausted { size })
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        if let Some(layout) = layout(size) {
            // SAFETY: `map` used this layout, and the arena is unused (contract of `unmap`).
            unsafe { System.dealloc(arena.as_ptr(), layout) };
        }
    }

    fn map_large(&mut self, bytes: usize, align: ArenaSize) -> Result<LargeMapping, MapError> {
        let bytes = bytes.max(align.bytes());
        let exhausted = MapError::LargeExhausted { bytes };
        let layout = Layout::from_size_align(bytes, align.bytes()).map_err(|_| exhausted)?;
        // SAFETY: the size of the layout is not 0.
        let start = NonNull::new(unsafe { System.alloc_zeroed(layout) }).ok_or(exhausted)?;
        Ok(LargeMapping { start, bytes, is_zeroed: true })
    }

    unsafe fn unmap_large(&mut self, start: NonNull<u8>, bytes: usize, align: ArenaSize) {
        if let Ok(layout) = Layout::from_size_align(bytes, align.bytes()) {
            // SAFETY: `map_large` used this layout, and nothing uses the memory (contract).
            unsafe { System.dealloc(start.as_ptr(), layout) };
        }
    }

    unsafe fn resize_large(
        &mut self,
        start: NonNull<u8>,
        old: usize,
        new: usize,
        _align: ArenaSize,
    ) -> Result<LargeMapping, MapError> {
        // A mapping that shrinks does not release any memory.
        if new <= old {
            Ok(LargeMapping { start, bytes: old, is_zeroed: true })
        } else {
            Err(MapError::LargeExhausted { bytes: new })
        }
    }
}
