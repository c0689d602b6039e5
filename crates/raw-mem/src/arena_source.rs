//! The trait that sources of arenas implement.

use core::ptr::NonNull;

use crate::{
    arena_size::ArenaSize,
    error::{MapError, PurgeError},
};

/// A source of arenas, which are large pieces of memory that are aligned to their size.
///
/// A source that wraps another source returns it from [`below`](Self::below). The default methods
/// then forward their calls to the wrapped source.
///
/// # Safety
///
/// The memory that [`map`](Self::map) returns must meet these requirements:
///
/// - The memory is readable and writable, at least `size` bytes long, and aligned to `size`.
/// - The memory does not overlap any other memory in use.
/// - The memory stays valid until [`unmap`](Self::unmap) is called, even if the source is moved or
///   one of its safe methods is called.
///
/// If a source owns the memory, dropping the source may invalidate memory that is still mapped.
///
/// A heap must not lend out a mutable reference to its source, because safe code could drop the
/// source.
pub unsafe trait ArenaSource {
    /// Maps an arena, whose contents are unspecified.
    ///
    /// # Errors
    ///
    /// Returns [`MapError`] and leaves the source unchanged if the memory cannot be provided.
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError>;

    /// Takes back an arena.
    ///
    /// # Safety
    ///
    /// - `arena` must have been returned by [`map`](Self::map) on this source with the same `size`.
    /// - `arena` must not have been mapped through a source that wraps this one.
    /// - `arena` must not have been unmapped already.
    /// - Nothing may use the arena's memory afterwards.
    ///
    /// An arena must go back through the outermost source that returned it.
    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize);

    /// Returns the source that this one wraps, if any.
    fn below(&mut self) -> Option<&mut dyn ArenaSource> {
        None
    }

    /// Returns the memory of the whole pages in a range to the system.
    ///
    /// The pages stay mapped and read as zero afterwards.
    ///
    /// # Errors
    ///
    /// Returns [`PurgeError`] if the source or the system cannot purge. The range stays usable, but
    /// its contents are then unspecified.
    ///
    /// # Safety
    ///
    /// - The range must lie inside one arena that this source has mapped.
    /// - Nothing may rely on its contents.
    unsafe fn purge(&mut self, start: NonNull<u8>, len: usize) -> Result<(), PurgeError> {
        match self.below() {
            // SAFETY: the wrapped source mapped the arena; the caller upholds the rest.
            Some(below) => unsafe { below.purge(start, len) },
            None => Err(PurgeError::Unsupported),
        }
    }

    /// Unmaps the free memory that the source keeps for later requests.
    fn trim(&mut self) {
        if let Some(below) = self.below() {
            below.trim();
        }
    }

    /// Asks how many free arenas a user, such as a heap, may keep instead of unmapping them.
    ///
    /// `had` is the number of free arenas that the user has kept so far. `want` is the number
    /// that the user would like to keep.
    ///
    /// Returns how many free arenas the user may keep, at most `want`. The user must unmap all
    /// others.
    fn retain(&mut self, had: usize, want: usize) -> usize {
        self.below().map_or(0, |below| below.retain(had, want))
    }

    /// Tells the source that a user allocates again from `count` free arenas that it had kept.
    ///
    /// A source that measures demand must count this call like a call to [`map`](Self::map).
    fn reuse_retained(&mut self, count: usize) {
        if let Some(below) = self.below() {
            below.reuse_retained(count);
        }
    }
}

// SAFETY: the referent fulfils the contract and serves every call.
unsafe impl<S: ArenaSource> ArenaSource for &mut S {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        (**self).map(size)
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        // SAFETY: the referent mapped the arena; the caller upholds the rest.
        unsafe { (**self).unmap(arena, size) }
    }

    fn below(&mut self) -> Option<&mut dyn ArenaSource> {
        Some(*self)
    }
}

/// A source for tests that records every call.
#[cfg(all(test, feature = "std"))]
pub(crate) mod recording {
    use std::vec::Vec;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Call {
        Map(ArenaSize),
        Unmap(NonNull<u8>, ArenaSize),
        Purge(NonNull<u8>, usize),
        Trim,
        Retain(usize, usize),
        ReuseRetained(usize),
    }

    /// A source without memory. It accepts every purge and lets its users keep every arena.
    #[derive(Debug, Default)]
    pub(crate) struct Recording(pub(crate) Vec<Call>);

    // SAFETY: it returns no arena.
    unsafe impl ArenaSource for Recording {
        fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
            self.0.push(Call::Map(size));
            Err(MapError::Exhausted { size })
        }

        unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
            self.0.push(Call::Unmap(arena, size));
        }

        unsafe fn purge(&mut self, start: NonNull<u8>, len: usize) -> Result<(), PurgeError> {
            self.0.push(Call::Purge(start, len));
            Ok(())
        }

        fn trim(&mut self) {
            self.0.push(Call::Trim);
        }

        fn retain(&mut self, had: usize, want: usize) -> usize {
            self.0.push(Call::Retain(had, want));
            want
        }

        fn reuse_retained(&mut self, count: usize) {
            self.0.push(Call::ReuseRetained(count));
        }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::{
        recording::{Call, Recording},
        *,
    };

    const SIZE: ArenaSize = ArenaSize::new(1 << 12).unwrap();

    fn call_everything(mut source: impl ArenaSource) -> (usize, Result<(), PurgeError>) {
        let place = NonNull::dangling();
        assert_eq!(source.map(SIZE), Err(MapError::Exhausted { size: SIZE }));
        source.reuse_retained(3);
        source.trim();
        // SAFETY: the sources of these tests touch no memory.
        let purged = unsafe {
            source.unmap(place, SIZE);
            source.purge(place, 64)
        };
        (source.retain(2, 4), purged)
    }

    #[test]
    fn a_reference_to_a_source_passes_every_call_on() {
        let mut source = Recording::default();
        assert_eq!(call_everything(&mut source), (4, Ok(())));
        let expected = [
            Call::Map(SIZE),
            Call::ReuseRetained(3),
            Call::Trim,
            Call::Unmap(NonNull::dangling(), SIZE),
            Call::Purge(NonNull::dangling(), 64),
            Call::Retain(2, 4),
        ];
        assert_eq!(source.0, expected);
    }

    #[test]
    fn a_source_that_only_maps_purges_and_retains_nothing() {
        struct Plain;

        // SAFETY: it returns no arena.
        unsafe impl ArenaSource for Plain {
            fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
                Err(MapError::Exhausted { size })
            }

            unsafe fn unmap(&mut self, _arena: NonNull<u8>, _size: ArenaSize) {}
        }

        assert_eq!(call_everything(Plain), (0, Err(PurgeError::Unsupported)));
    }
}
