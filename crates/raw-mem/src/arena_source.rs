//! Where arenas come from.

use core::ptr::NonNull;

use crate::{
    arena_size::ArenaSize,
    error::{MapError, PurgeError},
};

/// A source of arenas, which are large pieces of memory aligned to their size.
///
/// A source has one user at a time (`&mut self`). To share one between threads, put a lock around
/// it.
///
/// A source can be wrapped in another one, which for example retains arenas or records them. Such
/// a wrapper implements [`below`](Self::below), and every method with a default is then passed on.
///
/// # Safety
///
/// The memory that [`map`](Self::map) returns must
///
/// - be readable and writable, have `size` bytes, and be aligned to `size`;
/// - overlap no other memory in use;
/// - stay valid until it is passed to [`unmap`](Self::unmap), or until the source is dropped if the
///   source owns its memory. Moving the source and calling its safe methods must not affect it.
///
/// A heap relies on its own source, so it never lends the source mutably.
pub unsafe trait ArenaSource {
    /// Maps an arena. Its contents are unspecified.
    ///
    /// # Errors
    ///
    /// Returns [`MapError`] if there is no memory. Nothing has changed in that case.
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError>;

    /// Takes an arena back.
    ///
    /// # Safety
    ///
    /// - `arena` must have been returned by [`map`](Self::map) of this source for the same `size`,
    ///   and must not have been unmapped since.
    /// - Nothing may use its memory any more.
    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize);

    /// Returns the source that this one wraps. A source that wraps none returns `None`.
    fn below(&mut self) -> Option<&mut dyn ArenaSource> {
        None
    }

    /// Purges the whole pages inside the `len` bytes from `start`: their memory goes back to the
    /// system, their addresses stay usable, and they read as zero. Bytes outside of the range are
    /// not affected.
    ///
    /// # Errors
    ///
    /// Returns [`PurgeError`] if the source or the system cannot purge. The memory is as usable as
    /// before, but its contents are unspecified.
    ///
    /// # Safety
    ///
    /// - The range must lie inside one arena that this source has mapped.
    /// - Nothing may rely on the contents of the range.
    unsafe fn purge(&mut self, start: NonNull<u8>, len: usize) -> Result<(), PurgeError> {
        match self.below() {
            // SAFETY: the arena was mapped by the wrapped source, and the rest is our contract.
            Some(below) => unsafe { below.purge(start, len) },
            None => Err(PurgeError::Unsupported),
        }
    }

    /// Unmaps everything that the source retains for later requests.
    fn trim(&mut self) {
        if let Some(below) = self.below() {
            below.trim();
        }
    }

    /// Asks how many free arenas a user of the source may retain instead of unmapping them.
    ///
    /// The user has been granted `had` arenas so far and would now retain `want`. Returns how many
    /// it may retain, at most `want`; this number replaces `had`. The user must unmap the others.
    fn retain(&mut self, had: usize, want: usize) -> usize {
        self.below().map_or(0, |below| below.retain(had, want))
    }

    /// Records that a user allocates from `count` of the arenas that it retained. They no longer
    /// count as retained. Their use is as much a sign of demand as a call of [`map`](Self::map).
    fn reuse_retained(&mut self, count: usize) {
        if let Some(below) = self.below() {
            below.reuse_retained(count);
        }
    }
}

// SAFETY: arenas are mapped and unmapped by the referent, which fulfils the contract.
unsafe impl<S: ArenaSource> ArenaSource for &mut S {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        (**self).map(size)
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        // SAFETY: the arena came from the referent, and the rest is the contract of `unmap`.
        unsafe { (**self).unmap(arena, size) }
    }

    fn below(&mut self) -> Option<&mut dyn ArenaSource> {
        Some(*self)
    }
}

/// A source for tests that records how it is called.
#[cfg(all(test, feature = "std"))]
pub(crate) mod recording {
    use std::vec::Vec;

    use super::*;

    /// One call, with its arguments.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Call {
        Map(ArenaSize),
        Unmap(NonNull<u8>, ArenaSize),
        Purge(NonNull<u8>, usize),
        Trim,
        Retain(usize, usize),
        ReuseRetained(usize),
    }

    /// Has no memory, purges everything, and lets its users retain every arena.
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

    /// Calls every method of `source`.
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
