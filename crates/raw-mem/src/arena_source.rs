//! The trait that sources of arenas implement.

use core::ptr::NonNull;

use crate::{
    arena_size::ArenaSize,
    error::{MapError, PurgeError},
};

/// A source of arenas. An arena is a large piece of memory that is aligned to its size.
///
/// Every method takes `&mut self`, so only one caller at a time can use a source. To share a source
/// between threads, put it behind a lock.
///
/// A source can wrap another source, for example to retain arenas or to record calls. Such a
/// wrapper returns the wrapped source from [`below`](Self::below). Every method with a default
/// implementation then forwards its call to the wrapped source.
///
/// # Safety
///
/// The memory that [`map`](Self::map) returns must
///
/// - be readable and writable, be at least `size` bytes long, and be aligned to `size`;
/// - not overlap any other memory in use;
/// - stay valid until it is passed to [`unmap`](Self::unmap). If the source owns the memory,
///   dropping the source may also invalidate the memory. Moving the source, or calling one of its
///   safe methods, must not invalidate it.
///
/// A user of the source may rely on its arenas staying valid. With a mutable reference to the
/// source, safe code could replace the source and thereby drop it. A heap therefore never lends out
/// a mutable reference to its source.
pub unsafe trait ArenaSource {
    /// Maps an arena. The contents of the arena are unspecified.
    ///
    /// # Errors
    ///
    /// Returns [`MapError`] if the source cannot provide the memory. The source is unchanged in
    /// that case.
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError>;

    /// Takes back an arena that the user no longer needs.
    ///
    /// # Safety
    ///
    /// - `arena` must have been returned by [`map`](Self::map) of this source for the same `size`,
    ///   and must not have been unmapped since.
    /// - Nothing may use the memory of the arena any more.
    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize);

    /// Returns the source that this one wraps, or `None` if it wraps no other source.
    fn below(&mut self) -> Option<&mut dyn ArenaSource> {
        None
    }

    /// Purges the pages that lie entirely inside the `len` bytes from `start`. Purging a page
    /// returns its memory to the system. The addresses of the page stay usable, and its bytes read
    /// as zero afterwards. Bytes outside of the range are not affected.
    ///
    /// # Errors
    ///
    /// Returns [`PurgeError`] if the source or the system cannot purge. In that case, the memory of
    /// the range stays usable, but its contents are unspecified.
    ///
    /// # Safety
    ///
    /// - The range must lie inside one arena that this source has mapped.
    /// - Nothing may rely on the contents of the range.
    unsafe fn purge(&mut self, start: NonNull<u8>, len: usize) -> Result<(), PurgeError> {
        match self.below() {
            // SAFETY: the wrapped source has mapped the arena. The caller guarantees the rest
            // (contract of `purge`, which is the same for both sources).
            Some(below) => unsafe { below.purge(start, len) },
            None => Err(PurgeError::Unsupported),
        }
    }

    /// Unmaps all memory that the source has retained for later requests.
    fn trim(&mut self) {
        if let Some(below) = self.below() {
            below.trim();
        }
    }

    /// Asks the source how many free arenas a user, such as a heap, may retain instead of unmapping
    /// them.
    ///
    /// `had` is the number of free arenas that the user retains at present, as earlier calls of
    /// this method have allowed. `want` is the number of free arenas that the user would like to
    /// retain from now on. The method returns how many the user may retain from now on, which is at
    /// most `want`. The source counts the returned number for this user instead of `had`, and the
    /// user must unmap all free arenas beyond that number.
    fn retain(&mut self, had: usize, want: usize) -> usize {
        self.below().map_or(0, |below| below.retain(had, want))
    }

    /// Tells the source that a user allocates again from `count` free arenas that the user had
    /// retained. The source no longer counts these arenas as retained. A source that decides by
    /// recent demand must treat this call like a call of [`map`](Self::map), because both show that
    /// the program needs arenas at present.
    fn reuse_retained(&mut self, count: usize) {
        if let Some(below) = self.below() {
            below.reuse_retained(count);
        }
    }
}

// SAFETY: the referent maps and unmaps every arena, and it fulfils the contract of `ArenaSource`.
unsafe impl<S: ArenaSource> ArenaSource for &mut S {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        (**self).map(size)
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        // SAFETY: the referent has mapped the arena. The caller guarantees the rest (contract of
        // `unmap`).
        unsafe { (**self).unmap(arena, size) }
    }

    fn below(&mut self) -> Option<&mut dyn ArenaSource> {
        Some(*self)
    }
}

/// A source for tests that records every call of its methods.
#[cfg(all(test, feature = "std"))]
pub(crate) mod recording {
    use std::vec::Vec;

    use super::*;

    /// One call of a method of the source, with its arguments.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Call {
        Map(ArenaSize),
        Unmap(NonNull<u8>, ArenaSize),
        Purge(NonNull<u8>, usize),
        Trim,
        Retain(usize, usize),
        ReuseRetained(usize),
    }

    /// A source without memory that records each call. It accepts every purge, and lets its users
    /// retain every arena.
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
