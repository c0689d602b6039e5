//! A source that forwards every call, for targets on which no range of addresses is reserved.

use core::ptr::NonNull;

use crate::{ArenaSize, ArenaSource, Contents, MapError};

/// A source that reserves a range of addresses on some targets. This target is not one of them.
///
/// All memory comes from the wrapped source.
#[derive(Debug, Default)]
pub struct ReservedArenas<S> {
    source: S,
}

impl<S> ReservedArenas<S> {
    /// Wraps `source`.
    pub const fn new(source: S) -> Self {
        Self { source }
    }

    /// Does nothing, because the wrapped source does not let users retain large mappings.
    pub fn limit_large_users_to(&mut self, _slots: usize) {}
}

// SAFETY: the wrapped source serves every call.
unsafe impl<S: ArenaSource> ArenaSource for ReservedArenas<S> {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        self.source.map(size)
    }

    fn map_with_contents(&mut self, size: ArenaSize) -> Result<(NonNull<u8>, Contents), MapError> {
        self.source.map_with_contents(size)
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        // SAFETY: the wrapped source mapped the arena; the caller upholds the rest.
        unsafe { self.source.unmap(arena, size) }
    }

    fn below(&mut self) -> Option<&mut dyn ArenaSource> {
        Some(&mut self.source)
    }
}
