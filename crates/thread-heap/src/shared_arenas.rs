//! The arenas of one thread heap: from the source that all share, entered in the map as its own.

use std::{ffi::CStr, fmt, ptr::NonNull};

use raw_mem::{Advice, AdviseError, ArenaSize, ArenaSource, MapError, preserving_errno};

use crate::{
    parts::Parts,
    shared_source::{OURS, SharedSource},
};

/// A thread heap's way to the shared source; for the heap of no thread, a way to nowhere.
pub(crate) struct SharedArenas<P: Parts>(Option<&'static SharedSource<P>>);

/// The methods that a free may call leave `errno` alone, because waiting for the lock can change it.
impl<P: Parts> SharedArenas<P> {
    pub(crate) const NONE: Self = Self(None);

    pub(crate) const fn of(shared: &'static SharedSource<P>) -> Self {
        Self(Some(shared))
    }
}

// SAFETY: the arenas are those of the shared source, which hands each out once.
unsafe impl<P: Parts> ArenaSource for SharedArenas<P> {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        let exhausted = MapError::Exhausted { size };
        let heaps = self.0.ok_or(exhausted)?;
        let arena = heaps.source().map(size)?;
        // SAFETY: the map's nodes all come from `lower`. The arena was mapped just now, and `unmap`
        // retracts it.
        if unsafe { heaps.map().publish(arena.addr().get(), OURS, heaps.lower()) } {
            return Ok(arena);
        }
        // SAFETY: it was mapped just now, and nobody has seen it.
        unsafe { heaps.source().unmap(arena, size) };
        Err(exhausted)
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        let Some(heaps) = self.0 else { return };
        // Before the memory goes, because anyone may map the address afterwards.
        // SAFETY: nobody uses the arena any more (contract of `unmap`).
        unsafe { heaps.map().retract(arena.addr().get()) };
        // SAFETY: the caller's promise, which is about the shared source as well.
        preserving_errno(|| unsafe { heaps.source().unmap(arena, size) });
    }

    unsafe fn advise(
        &mut self,
        start: NonNull<u8>,
        len: usize,
        advice: Advice,
    ) -> Result<(), AdviseError> {
        let heaps = self.0.ok_or(AdviseError::Unsupported { advice })?;
        // SAFETY: the caller's promise, which is about the shared source as well.
        unsafe { heaps.source().advise(start, len, advice) }
    }

    fn name(&mut self, name: &'static CStr) {
        if let Some(heaps) = self.0 {
            heaps.source().name(name);
        }
    }

    fn trim(&mut self) {
        if let Some(heaps) = self.0 {
            heaps.source().trim();
        }
    }

    fn would_keep(&mut self) -> bool {
        preserving_errno(|| self.0.is_some_and(|heaps| heaps.source().would_keep()))
    }

    fn kept_no_longer(&mut self, arenas: usize, used: bool) {
        if let Some(heaps) = self.0 {
            preserving_errno(|| heaps.source().kept_no_longer(arenas, used));
        }
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

    /// A source without arenas that records what it is told.
    #[derive(Clone, Default)]
    struct Recording(Arc<Mutex<Vec<String>>>);

    impl Recording {
        fn add(&self, call: impl fmt::Debug) {
            self.0.lock().unwrap().push(format!("{call:?}"));
        }
    }

    // SAFETY: it has no arenas.
    unsafe impl ArenaSource for Recording {
        fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
            self.add("map");
            Err(MapError::Exhausted { size })
        }

        unsafe fn unmap(&mut self, _arena: NonNull<u8>, _size: ArenaSize) {
            self.add("unmap");
        }

        unsafe fn advise(
            &mut self,
            start: NonNull<u8>,
            len: usize,
            advice: Advice,
        ) -> Result<(), AdviseError> {
            self.add((start.addr(), len, advice));
            Ok(())
        }

        fn name(&mut self, name: &'static CStr) {
            self.add(name);
        }

        fn trim(&mut self) {
            self.add("trim");
        }

        fn would_keep(&mut self) -> bool {
            self.add("would keep");
            true
        }

        fn kept_no_longer(&mut self, arenas: usize, used: bool) {
            self.add((arenas, used));
        }
    }

    type TestParts = (Recording, Malloc, ThreadGeometry);
    type TestArenas = SharedArenas<TestParts>;

    /// Tells `arenas` everything that a source can be told. Returns what it answers.
    fn tell_everything(mut arenas: TestArenas) -> (bool, bool) {
        arenas.name(c"arenas of a test");
        arenas.trim();
        arenas.kept_no_longer(3, true);
        // SAFETY: the source touches no memory.
        let advised = unsafe { arenas.advise(NonNull::<u8>::dangling(), 64, Advice::Free) };
        (arenas.would_keep(), advised.is_ok())
    }

    #[test]
    fn the_shared_source_hears_of_everything() {
        static HEAPS: LazyLock<(Recording, SharedSource<TestParts>)> = LazyLock::new(|| {
            let source = Recording::default();
            (source.clone(), SharedSource::new(source, Malloc))
        });
        let (source, heaps) = &*HEAPS;
        assert_eq!(tell_everything(SharedArenas::of(heaps)), (true, true));
        let expected =
            ["\"arenas of a test\"", "\"trim\"", "(3, true)", "(1, 64, Free)", "\"would keep\""];
        assert_eq!(*source.0.lock().unwrap(), expected);
    }

    #[test]
    fn the_heap_of_no_thread_keeps_and_maps_nothing() {
        let size = obmalloc::Shape::<ThreadGeometry>::ARENA;
        assert_eq!(tell_everything(SharedArenas::NONE), (false, false));
        let mut arenas = TestArenas::NONE;
        assert!(arenas.map(size).is_err());
    }
}
