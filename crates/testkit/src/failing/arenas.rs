use std::ptr::NonNull;

use raw_mem::{ArenaSize, ArenaSource, Contents, LargeMapping, MapError, OsCode, PurgeError};

use super::faults::Faults;
use crate::place::ArenaLog;

/// An arena source whose calls that map, resize or purge memory fail when its [`Faults`] demand it.
///
/// The source logs its arenas. It panics if an arena is unmapped that is not mapped.
#[derive(Debug, Default)]
pub struct FailingArenas<S> {
    source: S,
    faults: Faults,
    purges: Faults,
    log: ArenaLog,
}

impl<S> FailingArenas<S> {
    /// Wraps `source`. `faults` decides which calls fail, and `log` records the arenas.
    pub fn new(source: S, faults: Faults, log: ArenaLog) -> Self {
        Self { source, faults, purges: Faults::default(), log }
    }

    /// Lets `purges` decide which purges fail.
    #[must_use]
    pub fn with_purge_faults(self, purges: Faults) -> Self {
        Self { purges, ..self }
    }
}

// SAFETY: all memory comes from `source`. A call that fails on purpose changes no arena.
unsafe impl<S: ArenaSource> ArenaSource for FailingArenas<S> {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        Ok(self.map_with_contents(size)?.0)
    }

    fn map_with_contents(&mut self, size: ArenaSize) -> Result<(NonNull<u8>, Contents), MapError> {
        if self.faults.call_fails() {
            return Err(MapError::Exhausted { size });
        }
        let (arena, contents) = self.source.map_with_contents(size)?;
        self.log.map(arena);
        Ok((arena, contents))
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        self.log.unmap(arena);
        // SAFETY: `source` mapped the arena with this size, and nothing uses it (contract).
        unsafe { self.source.unmap(arena, size) }
    }

    fn map_large(&mut self, bytes: usize, align: ArenaSize) -> Result<LargeMapping, MapError> {
        if self.faults.call_fails() {
            return Err(MapError::LargeExhausted { bytes });
        }
        let mapping = self.source.map_large(bytes, align)?;
        self.log.map_large(mapping.start, mapping.bytes);
        Ok(mapping)
    }

    unsafe fn unmap_large(&mut self, start: NonNull<u8>, bytes: usize, align: ArenaSize) {
        self.log.unmap_large(start, bytes);
        // SAFETY: `source` made the mapping, and nothing uses it (contract).
        unsafe { self.source.unmap_large(start, bytes, align) }
    }

    unsafe fn resize_large(
        &mut self,
        start: NonNull<u8>,
        old: usize,
        new: usize,
        align: ArenaSize,
    ) -> Result<LargeMapping, MapError> {
        if self.faults.call_fails() {
            return Err(MapError::LargeExhausted { bytes: new });
        }
        // SAFETY: `source` mapped the memory; the caller upholds the rest.
        let resized = unsafe { self.source.resize_large(start, old, new, align) }?;
        self.log.unmap_large(start, old);
        self.log.map_large(resized.start, resized.bytes);
        Ok(resized)
    }

    unsafe fn purge(&mut self, start: NonNull<u8>, len: usize) -> Result<(), PurgeError> {
        if self.purges.call_fails() {
            let (start, code) = (start.addr().get(), OsCode(libc::EINVAL));
            return Err(PurgeError::Os { start, len, code });
        }
        // SAFETY: `source` mapped the arena; the caller upholds the rest.
        unsafe { self.source.purge(start, len) }
    }

    fn below(&mut self) -> Option<&mut dyn ArenaSource> {
        Some(&mut self.source)
    }
}

#[cfg(test)]
mod tests {
    use raw_mem::{Malloc, MallocArenas, MmapArenas};

    use super::*;
    use crate::failing::{Plan, Tally};

    #[test]
    fn a_clone_of_the_faults_counts_and_fails_the_calls_of_the_source() {
        let (faults, log) = (Faults::new(Plan::From(2)), ArenaLog::default());
        let mut arenas = FailingArenas::new(MallocArenas::new(Malloc), faults.clone(), log.clone());
        let size = ArenaSize::new(4096).unwrap();
        let arena = arenas.map(size).unwrap();
        assert_eq!(arenas.map(size), Err(MapError::Exhausted { size }));
        assert_eq!(faults.tally(), Tally { calls: 2, failures: 1 });
        faults.restart(Plan::Never);
        let other = arenas.map(size).unwrap();
        assert_eq!(log.mapped(), 2);
        // SAFETY: both arenas are mapped and unused.
        unsafe {
            arenas.unmap(arena, size);
            arenas.unmap(other, size);
        }
        assert_eq!(log.mapped(), 0);
    }

    #[test]
    fn large_mappings_are_logged_and_fail() {
        let (faults, log) = (Faults::new(Plan::Nth(2)), ArenaLog::default());
        let mut arenas = FailingArenas::new(MmapArenas::new(), faults.clone(), log.clone());
        let align = ArenaSize::new(1 << 20).unwrap();
        let large = arenas.map_large(3 << 20, align).unwrap();
        assert!(arenas.map_large(3 << 20, align).is_err());
        assert_eq!((log.large(), faults.tally()), (1, Tally { calls: 2, failures: 1 }));
        // SAFETY: the mapping is unused.
        unsafe { arenas.unmap_large(large.start, large.bytes, align) };
        assert_eq!((log.large(), log.mapped()), (0, 0));
    }
}
