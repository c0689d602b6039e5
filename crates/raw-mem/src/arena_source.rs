//! Where arenas come from.

use core::{ffi::CStr, fmt, ptr::NonNull};

use crate::{AdviseError, MapError};

/// The bytes of an arena, which are also its alignment: a power of two of at least 64.
///
/// Because an arena is aligned to its size, the arena of an address is that address with its low
/// bits cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArenaSize(usize);

impl ArenaSize {
    /// An arena of `bytes`; `None` unless that is a power of two of at least 64 and at most
    /// a quarter of the address space.
    pub const fn new(bytes: usize) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= 64 && bytes <= 1 << (usize::BITS - 2) {
            Some(Self(bytes))
        } else {
            None
        }
    }

    /// The size, and alignment, in bytes.
    #[inline]
    pub const fn bytes(self) -> usize {
        self.0
    }
}

impl fmt::Display for ArenaSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, aligned to its size", self.0)
    }
}

/// What the operating system may be told about a range of an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// The contents are not needed: memory goes back now, and reads as zero when touched again.
    DontNeed,
    /// The contents are not needed: memory goes back when the system is short of it.
    Free,
    /// Back the range with huge pages where possible.
    HugePage,
}

/// A source of arenas: large pieces of memory, each aligned to its size.
///
/// A source has one owner at a time (`&mut self`). Who shares one between threads puts a lock
/// around it.
///
/// # Safety
///
/// An implementer promises that [`map`](Self::map) returns `size` bytes of memory that
///
/// - are readable and writable, and aligned to `size`;
/// - overlap nothing else in use;
/// - stay so until [`unmap`](Self::unmap) or, for a source that takes its memory along, until the
///   source is dropped. Moving the source does not affect them, nor does any safe method of it.
///
/// A heap relies on its own source, so it never lends the source mutably.
pub unsafe trait ArenaSource {
    /// Maps an arena. Its contents are unspecified.
    ///
    /// # Errors
    ///
    /// [`MapError`] when no memory is to be had; nothing has changed then.
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError>;

    /// Takes an arena back.
    ///
    /// # Safety
    ///
    /// `arena` came from [`map`](Self::map) of this source with the same `size`, has not been
    /// given back since, and nobody uses its memory any more.
    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize);

    /// Advises the system about `len` bytes from `start`.
    ///
    /// A range that does not begin and end on a page is rounded inwards, so that no byte outside
    /// of it is touched by the advice.
    ///
    /// # Errors
    ///
    /// [`AdviseError`]; the memory is as usable as before. A source without an operating system
    /// below it takes no advice.
    ///
    /// # Safety
    ///
    /// - The range must lie inside one arena that this source has mapped.
    /// - With [`Advice::DontNeed`] and [`Advice::Free`], nothing may rely on its contents.
    unsafe fn advise(
        &mut self,
        start: NonNull<u8>,
        len: usize,
        advice: Advice,
    ) -> Result<(), AdviseError> {
        let _ = (start, len);
        Err(AdviseError::Unsupported { advice })
    }

    /// Names the memory that is mapped from now on, for tools that show a process's mappings.
    /// Best effort: many systems have no such names.
    fn name(&mut self, name: &'static CStr) {
        let _ = name;
    }

    /// Gives back what the source keeps for later requests, if it does.
    fn trim(&mut self) {}

    /// Whether an owner that has an arena with nothing in use had better keep it than give it
    /// back, since arenas are asked for. If so, the arena counts as kept until the source is
    /// [told](Self::kept_no_longer).
    fn would_keep(&mut self) -> bool {
        false
    }

    /// So many `arenas` that owners kept are kept no longer: they come back, or are used again,
    /// which is as good as a request for one.
    fn kept_no_longer(&mut self, arenas: usize, used: bool) {
        let _ = (arenas, used);
    }
}

// SAFETY: every promise is the referent's, and it is asked unchanged.
unsafe impl<S: ArenaSource + ?Sized> ArenaSource for &mut S {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        (**self).map(size)
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        // SAFETY: the caller's promise is about the referent's arenas.
        unsafe { (**self).unmap(arena, size) }
    }

    unsafe fn advise(
        &mut self,
        start: NonNull<u8>,
        len: usize,
        advice: Advice,
    ) -> Result<(), AdviseError> {
        // SAFETY: the caller's promise is about the referent's arenas.
        unsafe { (**self).advise(start, len, advice) }
    }

    fn name(&mut self, name: &'static CStr) {
        (**self).name(name);
    }

    fn trim(&mut self) {
        (**self).trim();
    }

    fn would_keep(&mut self) -> bool {
        (**self).would_keep()
    }

    fn kept_no_longer(&mut self, arenas: usize, used: bool) {
        (**self).kept_no_longer(arenas, used);
    }
}

/// A source for tests that writes down what it is asked.
#[cfg(all(test, feature = "std"))]
pub(crate) mod recording {
    use std::vec::Vec;

    use super::*;

    /// One call, with its arguments.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Call {
        Map(ArenaSize),
        Unmap(NonNull<u8>, ArenaSize),
        Advise(NonNull<u8>, usize, Advice),
        Name(&'static CStr),
        Trim,
        WouldKeep,
        KeptNoLonger(usize, bool),
    }

    /// Has no memory, takes every advice, and would keep every arena.
    #[derive(Debug, Default)]
    pub(crate) struct Recording(pub(crate) Vec<Call>);

    // SAFETY: it hands out no arena.
    unsafe impl ArenaSource for Recording {
        fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
            self.0.push(Call::Map(size));
            Err(MapError::Exhausted { size })
        }

        unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
            self.0.push(Call::Unmap(arena, size));
        }

        unsafe fn advise(
            &mut self,
            start: NonNull<u8>,
            len: usize,
            advice: Advice,
        ) -> Result<(), AdviseError> {
            self.0.push(Call::Advise(start, len, advice));
            Ok(())
        }

        fn name(&mut self, name: &'static CStr) {
            self.0.push(Call::Name(name));
        }

        fn trim(&mut self) {
            self.0.push(Call::Trim);
        }

        fn would_keep(&mut self) -> bool {
            self.0.push(Call::WouldKeep);
            true
        }

        fn kept_no_longer(&mut self, arenas: usize, used: bool) {
            self.0.push(Call::KeptNoLonger(arenas, used));
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

    /// Asks everything of `source` that a source can be asked.
    fn ask_everything(mut source: impl ArenaSource) -> (bool, Result<(), AdviseError>) {
        let place = NonNull::dangling();
        assert_eq!(source.map(SIZE), Err(MapError::Exhausted { size: SIZE }));
        source.name(c"arenas");
        source.kept_no_longer(3, true);
        source.trim();
        // SAFETY: the sources of these tests touch no memory.
        let advised = unsafe {
            source.unmap(place, SIZE);
            source.advise(place, 64, Advice::Free)
        };
        (source.would_keep(), advised)
    }

    #[test]
    fn a_source_by_reference_is_asked_everything_unchanged() {
        let mut source = Recording::default();
        assert_eq!(ask_everything(&mut source), (true, Ok(())));
        let expected = [
            Call::Map(SIZE),
            Call::Name(c"arenas"),
            Call::KeptNoLonger(3, true),
            Call::Trim,
            Call::Unmap(NonNull::dangling(), SIZE),
            Call::Advise(NonNull::dangling(), 64, Advice::Free),
            Call::WouldKeep,
        ];
        assert_eq!(source.0, expected);
    }

    #[test]
    fn a_source_that_only_maps_takes_no_advice_and_would_keep_nothing() {
        struct Plain;

        // SAFETY: it hands out no arena.
        unsafe impl ArenaSource for Plain {
            fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
                Err(MapError::Exhausted { size })
            }

            unsafe fn unmap(&mut self, _arena: NonNull<u8>, _size: ArenaSize) {}
        }

        let unsupported = AdviseError::Unsupported { advice: Advice::Free };
        assert_eq!(ask_everything(Plain), (false, Err(unsupported)));
    }

    #[test]
    fn only_powers_of_two_can_be_the_size_of_an_arena() {
        assert!(ArenaSize::new(1 << 20).is_some());
        assert!(ArenaSize::new(3 << 20).is_none());
        assert!(ArenaSize::new(32).is_none());
        assert!(ArenaSize::new(0).is_none());
        assert!(ArenaSize::new(64).is_some());
        assert!(ArenaSize::new(1 << (usize::BITS - 2)).is_some());
        assert!(ArenaSize::new(1 << (usize::BITS - 1)).is_none());
    }
}
