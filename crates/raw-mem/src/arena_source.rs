//! The trait that sources of arenas implement.

use core::{
    ops::Range,
    ptr::{self, NonNull},
};

use crate::{
    arena_size::ArenaSize,
    contents::Contents,
    error::{MapError, PurgeError},
    huge_pages::HugePages,
    large::LargeMapping,
};

/// The largest size in bytes of the range that a source may [reserve](ArenaSource::reserved).
pub const RESERVED_BYTES: u64 = 1 << 36;

/// A source of arenas, which are large pieces of memory aligned to their size.
///
/// A source may also provide *large mappings*, each of which holds one block that is too large for
/// an arena. A large mapping starts at a multiple of the arena size.
///
/// A source that wraps another source returns it from [`below`](Self::below). The default methods
/// then forward their calls to the wrapped source.
///
/// # Safety
///
/// The memory that [`map`](Self::map) and [`map_large`](Self::map_large) return must meet these
/// requirements:
///
/// - The memory is readable and writable, has at least the requested size, and is aligned to the
///   size of an arena.
/// - The memory does not overlap any other memory in use.
/// - A large mapping can be shorter than an arena. In that case, no other memory lies within an
///   arena's size from its start, because an arena map has a single entry for these addresses.
/// - The memory stays valid until [`unmap`](Self::unmap) or [`unmap_large`](Self::unmap_large) is
///   called. Moving the source or calling its safe methods does not invalidate the memory.
/// - If the source says that new memory is zeroed, with [`Contents::Zero`] or
///   by [`LargeMapping::is_zeroed`], every byte of it is zero.
///
/// No method may unwind. If an implementer calls code of the program, such as a clock, and that
/// code panics, the implementer must end the process. The
/// function [`without_unwinding`](crate::without_unwinding) does this.
///
/// If [`reserved`](Self::reserved) returns a range that is not empty, these requirements hold as
/// long as the source exists:
///
/// - Every later range starts at the same address and is not longer than [`RESERVED_BYTES`].
/// - Only [`shrink_reserved`](Self::shrink_reserved) makes the range shorter. Nothing in the part
///   that is cut off is in use.
/// - The range contains no memory that does not belong to this source.
/// - A mapping of the source lies entirely inside the range or entirely outside it. When the range
///   grows, the added part contains no mapping of the source except the one that is about to be
///   returned.
///
/// A heap must not expose a mutable reference to its source, because safe code could then drop the
/// source by assigning another one. Dropping a source may free the memory of its arenas, even while
/// the heap still uses them.
pub unsafe trait ArenaSource {
    /// Maps an arena, whose contents are unspecified.
    ///
    /// # Errors
    ///
    /// Returns [`MapError`] and leaves the source unchanged if the memory cannot be provided.
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError>;

    /// Maps an arena like [`map`](Self::map), and also returns whether it is known to be zero.
    ///
    /// A source that does not know the contents of its arenas can use the default method.
    ///
    /// # Errors
    ///
    /// Returns [`MapError`] and leaves the source unchanged if the memory cannot be provided.
    fn map_with_contents(&mut self, size: ArenaSize) -> Result<(NonNull<u8>, Contents), MapError> {
        Ok((self.map(size)?, Contents::Unknown))
    }

    /// Unmaps an arena.
    ///
    /// # Safety
    ///
    /// - `arena` must be an arena that this source mapped with the size `size` and has not unmapped
    ///   since.
    /// - If the arena came from a wrapper around this source, only that wrapper may make this call.
    ///   All other code must call the wrapper's `unmap`.
    /// - Nothing may use the memory of the arena after this call.
    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize);

    /// Maps memory for one large block of `bytes` bytes, which begins at a multiple of `align`.
    ///
    /// # Errors
    ///
    /// Returns [`MapError`] if the source has no large mappings or no memory.
    fn map_large(&mut self, bytes: usize, align: ArenaSize) -> Result<LargeMapping, MapError> {
        match self.below() {
            Some(below) => below.map_large(bytes, align),
            None => Err(MapError::LargeExhausted { bytes }),
        }
    }

    /// Unmaps a large mapping.
    ///
    /// # Safety
    ///
    /// - `start` and `bytes` must be the address and the size of a large mapping of this source.
    /// - `align` must be the alignment that was requested for this mapping.
    /// - If the mapping came from a wrapper around this source, only that wrapper may make this
    ///   call. All other code must call the wrapper's `unmap_large`.
    /// - Nothing may use the memory of the mapping after this call.
    unsafe fn unmap_large(&mut self, start: NonNull<u8>, bytes: usize, align: ArenaSize) {
        if let Some(below) = self.below() {
            // SAFETY: the wrapped source mapped the memory; the caller upholds the rest.
            unsafe { below.unmap_large(start, bytes, align) }
        }
    }

    /// Grows or shrinks a large mapping from `old` to at least `new` bytes without copying it.
    ///
    /// The source leaves the mapping in place, or moves its pages to other addresses in
    /// the [reserved](Self::reserved) range. The first `min(old, new)` bytes keep their contents.
    ///
    /// If this call fails, [`resize_or_copy`] copies the contents to a new mapping instead.
    ///
    /// # Errors
    ///
    /// Returns [`MapError`] and leaves the mapping unchanged if it cannot be resized in this way.
    ///
    /// # Safety
    ///
    /// - `start` and `old` must be the address and the size of a large mapping of this source.
    /// - `align` must be the alignment that was requested for this mapping.
    /// - If the mapping came from a wrapper around this source, only that wrapper may make this
    ///   call. All other code must call the wrapper's `resize_large`.
    /// - If the call succeeds, only the mapping that it returns may be used afterwards.
    unsafe fn resize_large(
        &mut self,
        start: NonNull<u8>,
        old: usize,
        new: usize,
        align: ArenaSize,
    ) -> Result<LargeMapping, MapError> {
        match self.below() {
            // SAFETY: the wrapped source mapped the memory; the caller upholds the rest.
            Some(below) => unsafe { below.resize_large(start, old, new, align) },
            None => Err(MapError::LargeExhausted { bytes: new }),
        }
    }

    /// Returns the range of addresses that belongs exclusively to this source.
    ///
    /// The range is empty if the source has reserved no addresses.
    ///
    /// The range may grow whenever the source maps or resizes memory. A caller that stores a copy
    /// of the range must therefore update the copy after each call that maps or resizes memory.
    fn reserved(&mut self) -> Range<usize> {
        self.below().map_or(0..0, |below| below.reserved())
    }

    /// Keeps the range of reserved addresses from growing beyond `bytes` bytes.
    ///
    /// A limit is useful in a process with a small address space, because nothing else in the
    /// process can use the reserved addresses. The source keeps them even after it has unmapped the
    /// arenas there.
    fn reserve_at_most(&mut self, bytes: usize) {
        if let Some(below) = self.below() {
            below.reserve_at_most(bytes);
        }
    }

    /// Sets whether the source uses huge pages. A source that reserves no addresses never uses
    /// them.
    ///
    /// The setting applies to memory that is mapped later. If the system refuses huge pages, the
    /// source uses small pages.
    fn use_huge_pages(&mut self, huge: HugePages) {
        if let Some(below) = self.below() {
            below.use_huge_pages(huge);
        }
    }

    /// Releases reserved addresses that nothing uses, so that other mappings can use them.
    ///
    /// If the [reserved](Self::reserved) range becomes shorter, the source first calls `publish`
    /// with the new range, and only then releases addresses. In `publish`, the caller can update
    /// its own copy of the range, for example in an arena map.
    ///
    /// A mapping that failed for lack of addresses may succeed after this call.
    ///
    /// # Safety
    ///
    /// - `publish` must not unwind.
    /// - After `publish` has returned, nothing may rely on an older copy of the range.
    /// - If a wrapper around this source stores the range, only that wrapper may make this call.
    ///   All other code must call the wrapper's `shrink_reserved`.
    unsafe fn shrink_reserved(&mut self, publish: &mut dyn FnMut(Range<usize>)) {
        if let Some(below) = self.below() {
            // SAFETY: the contract is the same.
            unsafe { below.shrink_reserved(publish) };
        }
    }

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
    /// - The `len` bytes that begin at `start` must lie inside one arena or large mapping that this
    ///   source has mapped.
    /// - Nothing may rely on the old contents of these bytes.
    unsafe fn purge(&mut self, start: NonNull<u8>, len: usize) -> Result<(), PurgeError> {
        match self.below() {
            // SAFETY: the wrapped source mapped the arena; the caller upholds the rest.
            Some(below) => unsafe { below.purge(start, len) },
            None => Err(PurgeError::Unsupported),
        }
    }

    /// Returns the size of the free memory that the source retains for later requests, in bytes.
    fn retained_bytes(&mut self) -> usize {
        self.below().map_or(0, |below| below.retained_bytes())
    }

    /// Unmaps the free memory that the source retains for later requests.
    ///
    /// Returns the number of unmapped bytes that may have been backed by memory.
    fn trim(&mut self) -> usize {
        self.below().map_or(0, |below| below.trim())
    }

    /// Unmaps retained memory whose decay time has passed.
    ///
    /// A user that might not make any other call for a while should call this function from time to
    /// time.
    fn decay(&mut self) {
        if let Some(below) = self.below() {
            below.decay();
        }
    }

    /// Asks how many free arenas a user, such as a heap, may retain instead of unmapping them.
    ///
    /// `had` is the number of free arenas that the user retains now, and `want` is the number that
    /// it would like to retain. Returns the number that the user may retain from now on, which is
    /// at most `want`. The user must unmap all of its free arenas beyond this number.
    fn retain(&mut self, had: usize, want: usize) -> usize {
        self.below().map_or(0, |below| below.retain(had, want))
    }

    /// Asks how much memory in large mappings a user, such as a heap, may retain instead of
    /// unmapping it.
    ///
    /// The arguments and the result are numbers of slots. A slot has the size of an arena. `had` is
    /// the number of slots that the source has allowed its user to retain until now, even if the
    /// user has retained fewer. `want` is the number that the user would like to retain. Returns
    /// the number that the user may retain from now on, which is at most `want`. The user must
    /// unmap all slots beyond this number.
    fn retain_large(&mut self, had: usize, want: usize) -> usize {
        self.below().map_or(0, |below| below.retain_large(had, want))
    }

    /// Tells the source that a user now allocates from `count` free arenas that it had retained.
    ///
    /// A source that measures demand must count this call like a call to [`map`](Self::map).
    fn reuse_retained(&mut self, count: usize) {
        if let Some(below) = self.below() {
            below.reuse_retained(count);
        }
    }
}

/// Resizes a large mapping, and moves it to new memory if `source` cannot resize it.
///
/// # Errors
///
/// Returns [`MapError`] and leaves the mapping unchanged if there is no memory.
///
/// # Safety
///
/// - `start` and `old` must be the address and the size of a large mapping of `source`.
/// - `align` must be the alignment that was requested for this mapping.
/// - If the mapping came from a wrapper around `source`, only that wrapper may make this call. All
///   other code must pass the wrapper as `source`.
/// - If the call succeeds, only the mapping that it returns may be used afterwards.
pub unsafe fn resize_or_copy<S: ArenaSource + ?Sized>(
    source: &mut S,
    start: NonNull<u8>,
    old: usize,
    new: usize,
    align: ArenaSize,
) -> Result<LargeMapping, MapError> {
    // SAFETY: the contract is the same.
    if let Ok(mapping) = unsafe { source.resize_large(start, old, new, align) } {
        return Ok(mapping);
    }
    let mapping = source.map_large(new, align)?;
    // SAFETY: both mappings are in use, so they do not overlap. Each has this many bytes.
    unsafe { ptr::copy_nonoverlapping(start.as_ptr(), mapping.start.as_ptr(), old.min(new)) };
    // SAFETY: the old mapping came from this source, and nothing uses it (contract).
    unsafe { source.unmap_large(start, old, align) };
    Ok(mapping)
}

// SAFETY: the referent fulfils the contract and serves every call.
unsafe impl<S: ArenaSource> ArenaSource for &mut S {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        (**self).map(size)
    }

    fn map_with_contents(&mut self, size: ArenaSize) -> Result<(NonNull<u8>, Contents), MapError> {
        (**self).map_with_contents(size)
    }

    fn reserve_at_most(&mut self, bytes: usize) {
        (**self).reserve_at_most(bytes);
    }

    unsafe fn shrink_reserved(&mut self, publish: &mut dyn FnMut(Range<usize>)) {
        // SAFETY: the contract is the same.
        unsafe { (**self).shrink_reserved(publish) }
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
        MapWithContents(ArenaSize),
        Unmap(NonNull<u8>, ArenaSize),
        Purge(NonNull<u8>, usize),
        Trim,
        Retain(usize, usize),
        RetainLarge(usize, usize),
        ReuseRetained(usize),
        MapLarge(usize),
        UnmapLarge(NonNull<u8>, usize),
        ResizeLarge(NonNull<u8>, usize, usize),
    }

    /// The range that [`Recording`] claims to have reserved.
    pub(crate) const RANGE: Range<usize> = 3 << 20..7 << 20;

    /// A source without memory. It accepts every purge and lets its users retain every arena.
    #[derive(Debug, Default)]
    pub(crate) struct Recording(pub(crate) Vec<Call>);

    // SAFETY: the source never returns an arena.
    unsafe impl ArenaSource for Recording {
        fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
            self.0.push(Call::Map(size));
            Err(MapError::Exhausted { size })
        }

        fn map_with_contents(
            &mut self,
            size: ArenaSize,
        ) -> Result<(NonNull<u8>, Contents), MapError> {
            self.0.push(Call::MapWithContents(size));
            Err(MapError::Exhausted { size })
        }

        unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
            self.0.push(Call::Unmap(arena, size));
        }

        unsafe fn purge(&mut self, start: NonNull<u8>, len: usize) -> Result<(), PurgeError> {
            self.0.push(Call::Purge(start, len));
            Ok(())
        }

        fn trim(&mut self) -> usize {
            self.0.push(Call::Trim);
            0
        }

        fn retain(&mut self, had: usize, want: usize) -> usize {
            self.0.push(Call::Retain(had, want));
            want
        }

        fn retain_large(&mut self, had: usize, want: usize) -> usize {
            self.0.push(Call::RetainLarge(had, want));
            want
        }

        fn reuse_retained(&mut self, count: usize) {
            self.0.push(Call::ReuseRetained(count));
        }

        fn map_large(&mut self, bytes: usize, _: ArenaSize) -> Result<LargeMapping, MapError> {
            self.0.push(Call::MapLarge(bytes));
            Err(MapError::LargeExhausted { bytes })
        }

        unsafe fn unmap_large(&mut self, start: NonNull<u8>, bytes: usize, _: ArenaSize) {
            self.0.push(Call::UnmapLarge(start, bytes));
        }

        unsafe fn resize_large(
            &mut self,
            start: NonNull<u8>,
            old: usize,
            new: usize,
            _: ArenaSize,
        ) -> Result<LargeMapping, MapError> {
            self.0.push(Call::ResizeLarge(start, old, new));
            Err(MapError::LargeExhausted { bytes: new })
        }

        fn reserved(&mut self) -> Range<usize> {
            RANGE
        }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::{
        recording::{Call, RANGE, Recording},
        *,
    };

    const SIZE: ArenaSize = ArenaSize::new(1 << 12).unwrap();

    fn call_everything(mut source: impl ArenaSource) -> (usize, Result<(), PurgeError>) {
        let place = NonNull::dangling();
        assert_eq!(source.map(SIZE), Err(MapError::Exhausted { size: SIZE }));
        assert!(source.map_with_contents(SIZE).is_err());
        source.reuse_retained(3);
        source.trim();
        assert_eq!(source.map_large(5, SIZE), Err(MapError::LargeExhausted { bytes: 5 }));
        // SAFETY: the sources of these tests touch no memory.
        let purged = unsafe {
            source.unmap(place, SIZE);
            source.unmap_large(place, 6, SIZE);
            assert!(source.resize_large(place, 7, 8, SIZE).is_err());
            source.purge(place, 64)
        };
        (source.retain(2, 4) + source.retain_large(3, 5), purged)
    }

    fn range_of(mut source: impl ArenaSource) -> Range<usize> {
        source.reserved()
    }

    #[test]
    fn a_reference_to_a_source_passes_every_call_on() {
        let mut source = Recording::default();
        assert_eq!(range_of(&mut source), RANGE);
        assert_eq!(call_everything(&mut source), (4 + 5, Ok(())));
        let expected = [
            Call::Map(SIZE),
            Call::MapWithContents(SIZE),
            Call::ReuseRetained(3),
            Call::Trim,
            Call::MapLarge(5),
            Call::Unmap(NonNull::dangling(), SIZE),
            Call::UnmapLarge(NonNull::dangling(), 6),
            Call::ResizeLarge(NonNull::dangling(), 7, 8),
            Call::Purge(NonNull::dangling(), 64),
            Call::Retain(2, 4),
            Call::RetainLarge(3, 5),
        ];
        assert_eq!(source.0, expected);
    }

    #[test]
    fn a_source_that_only_maps_purges_and_retains_nothing() {
        struct Plain;

        // SAFETY: the source never returns an arena.
        unsafe impl ArenaSource for Plain {
            fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
                Err(MapError::Exhausted { size })
            }

            unsafe fn unmap(&mut self, _arena: NonNull<u8>, _size: ArenaSize) {}
        }

        assert!(range_of(Plain).is_empty());
        assert_eq!(call_everything(Plain), (0, Err(PurgeError::Unsupported)));
    }
}
