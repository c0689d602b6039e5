//! One heap's access to the arena source that all heaps share.

use std::{fmt, ops::Range, ptr::NonNull};

use obmalloc::{ArenaFigures, ArenaTotals};
use raw_mem::{
    ArenaSize, ArenaSource, Contents, LargeMapping, MapError, PurgeError, preserving_errno,
};

use crate::{
    before_refusal,
    parts::Parts,
    shared_source::{Locked, SharedSource},
};

/// A handle to the shared arena source. In the heap that represents "no heap", it contains `None`.
///
/// Waiting for the lock of the source can change `errno`, so methods that may run during a free
/// restore it.
pub(crate) struct SharedArenas<P: Parts>(Option<&'static SharedSource<P>>);

impl<P: Parts> SharedArenas<P> {
    pub(crate) const NONE: Self = Self(None);

    pub(crate) const fn of(shared: &'static SharedSource<P>) -> Self {
        Self(Some(shared))
    }
}

// SAFETY: all arenas come from the shared source, which meets the contract of `ArenaSource`.
unsafe impl<P: Parts> ArenaSource for SharedArenas<P> {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        Ok(self.map_with_contents(size)?.0)
    }

    fn map_with_contents(&mut self, size: ArenaSize) -> Result<(NonNull<u8>, Contents), MapError> {
        let shared = self.0.ok_or(MapError::Exhausted { size })?;
        let exhausted = MapError::Exhausted { size };
        let (arena, contents) = shared.map_within_limit(size.bytes(), exhausted, |locked| {
            let (arena, contents) = locked.source.map_with_contents(size)?;
            locked.note_mapped(size.bytes());
            // SAFETY: the arena is new, and only a heap of this family will use it. It is removed
            // before it is unmapped.
            unsafe { locked.arenas.add::<P::Geometry>(arena, contents) };
            Ok((arena, contents))
        })?;
        // SAFETY: the arena was mapped by the shared source, and nothing else refers to it.
        let unmap = |arena| unsafe { shared.unmap_arena(arena, size) };
        // SAFETY: the map's nodes come from `lower`, and `SharedArenas::unmap` retracts the arena.
        let published =
            unsafe { shared.map().publish_or_unmap(arena, size, shared.lower(), unmap) };
        published.map(|arena| (arena, contents))
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        let Some(shared) = self.0 else { return };
        // SAFETY: nothing uses the arena any longer (contract of `unmap`).
        unsafe { shared.map().retract(arena.addr().get()) };
        // SAFETY: the arena came from the shared source, and nothing uses it (contract of `unmap`).
        preserving_errno(|| unsafe { shared.unmap_arena(arena, size) });
    }

    fn map_large(&mut self, bytes: usize, align: ArenaSize) -> Result<LargeMapping, MapError> {
        let exhausted = MapError::LargeExhausted { bytes };
        let shared = self.0.ok_or(exhausted)?;
        let mapping = shared.map_within_limit(bytes, exhausted, |locked| {
            let mapping = locked.source.map_large(bytes, align)?;
            locked.note_mapped(mapping.bytes);
            shared.large.add(1, mapping.bytes);
            Ok(mapping)
        })?;
        // SAFETY: the shared source made the mapping, and nothing else refers to it.
        let unmap = |start| unsafe { shared.unmap_large(start, mapping.bytes, align) };
        // SAFETY: the map's nodes come from `lower`, and `SharedArenas::unmap_large` retracts the
        // start. When the mapping is resized, it keeps its start or lies in the reserved range.
        match unsafe { shared.map().publish_or_unmap(mapping.start, align, shared.lower(), unmap) }
        {
            Ok(_) => Ok(mapping),
            Err(_) => Err(exhausted),
        }
    }

    unsafe fn unmap_large(&mut self, start: NonNull<u8>, bytes: usize, align: ArenaSize) {
        let Some(shared) = self.0 else { return };
        // SAFETY: nothing uses the mapping any longer (contract of `unmap_large`).
        unsafe { shared.map().retract(start.addr().get()) };
        // SAFETY: the mapping came from the shared source, and nothing uses it (contract).
        preserving_errno(|| unsafe { shared.unmap_large(start, bytes, align) });
    }

    unsafe fn resize_large(
        &mut self,
        start: NonNull<u8>,
        old: usize,
        new: usize,
        align: ArenaSize,
    ) -> Result<LargeMapping, MapError> {
        let exhausted = MapError::LargeExhausted { bytes: new };
        let shared = self.0.ok_or(exhausted)?;
        shared.map_within_limit(new.saturating_sub(old), exhausted, |locked| {
            // SAFETY: the mapping came from the shared source; the caller upholds the rest.
            let mapping = unsafe { locked.source.resize_large(start, old, new, align) }?;
            locked.note_mapped(mapping.bytes.saturating_sub(old));
            if mapping.bytes < old {
                locked.note_returned(old - mapping.bytes);
            }
            shared.large.add(0, mapping.bytes.wrapping_sub(old));
            Ok(mapping)
        })
    }

    fn reserved(&mut self) -> Range<usize> {
        self.0.map_or(0..0, |shared| shared.lock().source.reserved())
    }

    unsafe fn purge(&mut self, start: NonNull<u8>, len: usize) -> Result<(), PurgeError> {
        let shared = self.0.ok_or(PurgeError::Unsupported)?;
        // SAFETY: the range lies in an arena of the shared source (contract of `purge`).
        preserving_errno(|| unsafe { shared.lock().source.purge(start, len) })
    }

    fn trim(&mut self) -> usize {
        let Some(shared) = self.0 else { return 0 };
        preserving_errno(|| {
            let mut locked = shared.lock();
            let bytes = locked.source.trim();
            // SAFETY: the source calls this closure with the part of its range that remains, and
            // nothing uses the rest. The source is locked, so no call of `reserve` overlaps.
            let mut publish = |range| unsafe { shared.map().shrink(range) };
            // SAFETY: only the map stores the range, and the closure tells it the new one.
            unsafe { locked.source.shrink_reserved(&mut publish) };
            bytes
        })
    }

    fn decay(&mut self) {
        if let Some(shared) = self.0 {
            preserving_errno(|| shared.lock().source.decay());
        }
    }

    fn retain(&mut self, had: usize, want: usize) -> usize {
        if (had, want) == (0, 0) {
            return 0;
        }
        preserving_errno(|| self.0.map_or(0, |shared| shared.lock().source.retain(had, want)))
    }

    fn retain_large(&mut self, had: usize, want: usize) -> usize {
        if (had, want) == (0, 0) {
            return 0;
        }
        preserving_errno(|| self.0.map_or(0, |shared| shared.lock().source.retain_large(had, want)))
    }

    fn reuse_retained(&mut self, count: usize) {
        if let Some(shared) = self.0 {
            preserving_errno(|| shared.lock().source.reuse_retained(count));
        }
    }
}

impl<P: Parts> SharedSource<P> {
    /// Maps or resizes memory of the source, and then records the source's range of addresses in
    /// the arena map.
    ///
    /// The call may extend the source's range. The arena map must cover the new part before its
    /// memory is used.
    fn map_from_source<T>(
        &'static self,
        map: impl FnOnce(&mut Locked<P::Source>) -> Result<T, MapError>,
    ) -> Result<T, MapError> {
        // A request that succeeds can make system calls that fail, and must not change `errno`.
        preserving_errno(|| {
            let mut locked = self.lock();
            let mapped = map(&mut locked)?;
            // SAFETY: the range contains memory of the shared source only, keeps its start, and
            // never becomes shorter (contract of `ArenaSource`). Calls do not overlap, because the
            // source is locked. A static map is never released.
            unsafe { self.map().reserve(locked.source.reserved()) };
            Ok(mapped)
        })
    }

    /// Maps or resizes memory like [`map_from_source`](Self::map_from_source), unless `more`
    /// additional bytes would exceed the limit. In that case, returns `exhausted`.
    ///
    /// If the limit refuses the request, the function stores the refusal in a thread-local
    /// variable, so that the program's callback can be called later. The first access to this
    /// variable may allocate memory, for which this thread may need the lock of the source. The
    /// function therefore unlocks the source before the access.
    fn map_within_limit<T>(
        &'static self,
        more: usize,
        exhausted: MapError,
        map: impl FnOnce(&mut Locked<P::Source>) -> Result<T, MapError>,
    ) -> Result<T, MapError> {
        let mut reached = None;
        let mapped = self.map_from_source(|locked| {
            if !locked.usage.allows(more) {
                reached = locked.usage.refusal();
                return Err(exhausted);
            }
            map(locked)
        });
        if reached.is_some() {
            before_refusal::note(reached);
        }
        mapped
    }

    /// Counts the memory of the arenas of all heaps. O(units).
    pub(crate) fn count_arenas(&self, locked: &Locked<P::Source>) -> ArenaFigures {
        // SAFETY: `SharedArenas` adds all arenas, with this geometry.
        unsafe { locked.arenas.figures::<P::Geometry>() }
    }

    /// Like [`count_arenas`](Self::count_arenas), but without the size classes.
    pub(crate) fn total_arenas(&self, locked: &Locked<P::Source>) -> ArenaTotals {
        // SAFETY: `SharedArenas` adds all arenas, with this geometry.
        unsafe { locked.arenas.totals::<P::Geometry>() }
    }

    /// Returns an arena of a heap to the source.
    ///
    /// # Safety
    ///
    /// The contract of [`ArenaSource::unmap`] must hold for the source.
    unsafe fn unmap_arena(&self, arena: NonNull<u8>, size: ArenaSize) {
        let mut locked = self.lock();
        locked.note_returned(size.bytes());
        // SAFETY: the arena was added when it was mapped, and is about to be unmapped.
        unsafe { locked.arenas.remove::<P::Geometry>(arena) };
        // SAFETY: the contract is the same.
        unsafe { locked.source.unmap(arena, size) };
    }

    /// Returns a large mapping to the source.
    ///
    /// # Safety
    ///
    /// The contract of [`ArenaSource::unmap_large`] must hold for the source.
    unsafe fn unmap_large(&self, start: NonNull<u8>, bytes: usize, align: ArenaSize) {
        let mut locked = self.lock();
        locked.note_returned(bytes);
        self.large.add(usize::MAX, bytes.wrapping_neg());
        // SAFETY: the contract is the same.
        unsafe { locked.source.unmap_large(start, bytes, align) };
    }
}

impl<P: Parts> fmt::Debug for SharedArenas<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "SharedArenas" } else { "SharedArenas::NONE" })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::{Arc, LazyLock, Mutex};

    use raw_mem::Malloc;

    use super::*;
    use crate::ThreadGeometry;

    #[derive(Debug, PartialEq, Eq)]
    enum Call {
        Map,
        Unmap,
        Purge(usize),
        Trim,
        Retain(usize, usize),
        Reuse(usize),
        MapLarge(usize),
        UnmapLarge(usize),
        Resize(usize, usize),
    }

    const RANGE: Range<usize> = 5 << 30..6 << 30;

    #[derive(Clone, Default)]
    struct Recording(Arc<Mutex<Vec<Call>>>);

    impl Recording {
        fn add(&self, call: Call) {
            self.0.lock().unwrap().push(call);
        }
    }

    // SAFETY: `map` never returns an arena.
    unsafe impl ArenaSource for Recording {
        fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
            self.add(Call::Map);
            Err(MapError::Exhausted { size })
        }

        unsafe fn unmap(&mut self, _arena: NonNull<u8>, _size: ArenaSize) {
            self.add(Call::Unmap);
        }

        unsafe fn purge(&mut self, _start: NonNull<u8>, len: usize) -> Result<(), PurgeError> {
            self.add(Call::Purge(len));
            Ok(())
        }

        fn trim(&mut self) -> usize {
            self.add(Call::Trim);
            0
        }

        fn retain(&mut self, had: usize, want: usize) -> usize {
            self.add(Call::Retain(had, want));
            want
        }

        fn reuse_retained(&mut self, count: usize) {
            self.add(Call::Reuse(count));
        }

        fn map_large(&mut self, bytes: usize, _: ArenaSize) -> Result<LargeMapping, MapError> {
            self.add(Call::MapLarge(bytes));
            Err(MapError::LargeExhausted { bytes })
        }

        unsafe fn unmap_large(&mut self, _start: NonNull<u8>, bytes: usize, _: ArenaSize) {
            self.add(Call::UnmapLarge(bytes));
        }

        unsafe fn resize_large(
            &mut self,
            _start: NonNull<u8>,
            old: usize,
            new: usize,
            _: ArenaSize,
        ) -> Result<LargeMapping, MapError> {
            self.add(Call::Resize(old, new));
            Err(MapError::LargeExhausted { bytes: new })
        }

        fn reserved(&mut self) -> Range<usize> {
            RANGE
        }
    }

    type TestParts = (Recording, Malloc, ThreadGeometry);
    type TestArenas = SharedArenas<TestParts>;

    fn call_everything(mut arenas: TestArenas) -> (usize, bool) {
        arenas.trim();
        arenas.reuse_retained(3);
        let (place, size) = (NonNull::<u8>::dangling(), obmalloc::Shape::<ThreadGeometry>::ARENA);
        assert!(arenas.map_large(4, size).is_err());
        // SAFETY: the source touches no memory.
        let purged = unsafe {
            arenas.unmap_large(place, 5, size);
            assert!(arenas.resize_large(place, 6, 7, size).is_err());
            arenas.purge(place, 64)
        };
        (arenas.retain(1, 2), purged.is_ok())
    }

    #[test]
    fn every_call_reaches_the_shared_source() {
        static HEAPS: LazyLock<(Recording, SharedSource<TestParts>)> = LazyLock::new(|| {
            let source = Recording::default();
            (source.clone(), SharedSource::new(source, Malloc))
        });
        let (source, heaps) = &*HEAPS;
        assert_eq!(SharedArenas::of(heaps).reserved(), RANGE);
        assert_eq!(call_everything(SharedArenas::of(heaps)), (2, true));
        let expected = [
            Call::Trim,
            Call::Reuse(3),
            Call::MapLarge(4),
            Call::UnmapLarge(5),
            Call::Resize(6, 7),
            Call::Purge(64),
            Call::Retain(1, 2),
        ];
        assert_eq!(*source.0.lock().unwrap(), expected);
    }

    #[test]
    fn a_heap_without_a_source_maps_and_retains_nothing() {
        let size = obmalloc::Shape::<ThreadGeometry>::ARENA;
        assert_eq!(call_everything(SharedArenas::NONE), (0, false));
        let mut arenas = TestArenas::NONE;
        assert!(arenas.reserved().is_empty());
        assert!(arenas.map(size).is_err());
    }
}
