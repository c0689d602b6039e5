//! Arenas that are not always to be had.

use std::ptr::NonNull;

use raw_mem::{ArenaSize, ArenaSource, MapError};

use super::Faults;
use crate::place::ArenaLog;

/// An arena source that counts calls to [`map`](ArenaSource::map), fails those that its
/// [`Faults`] name, and keeps an [`ArenaLog`], so that only what is mapped can be unmapped.
#[derive(Debug, Default)]
pub struct FailingArenas<S> {
    source: S,
    faults: Faults,
    log: ArenaLog,
}

impl<S> FailingArenas<S> {
    /// `source`, failing as `faults` says, its arenas entered in `log`.
    pub fn new(source: S, faults: Faults, log: ArenaLog) -> Self {
        Self { source, faults, log }
    }
}

// SAFETY: memory is the inner source's, unchanged; a refusal hands out nothing.
unsafe impl<S: ArenaSource> ArenaSource for FailingArenas<S> {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        if self.faults.strike() {
            return Err(MapError::Exhausted { size });
        }
        let arena = self.source.map(size)?;
        self.log.map(arena);
        Ok(arena)
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        self.log.unmap(arena);
        // SAFETY: the arena came from the inner source (contract of `unmap`).
        unsafe { self.source.unmap(arena, size) }
    }

    fn below(&mut self) -> Option<&mut dyn ArenaSource> {
        Some(&mut self.source)
    }
}

#[cfg(test)]
mod tests {
    use raw_mem::{Malloc, MallocArenas};

    use super::*;
    use crate::failing::{Plan, Tally};

    #[test]
    fn a_clone_of_the_faults_sees_and_steers_the_source() {
        let (faults, log) = (Faults::new(Plan::From(2)), ArenaLog::default());
        let mut arenas = FailingArenas::new(MallocArenas::new(Malloc), faults.clone(), log.clone());
        let size = ArenaSize::new(4096).unwrap();
        let arena = arenas.map(size).unwrap();
        assert_eq!(arenas.map(size), Err(MapError::Exhausted { size }));
        assert_eq!(faults.tally(), Tally { calls: 2, failures: 1 });
        faults.restart(Plan::Never);
        let other = arenas.map(size).unwrap();
        assert_eq!(log.mapped(), 2);
        // SAFETY: both are mapped and unused.
        unsafe {
            arenas.unmap(arena, size);
            arenas.unmap(other, size);
        }
        assert_eq!(log.mapped(), 0);
    }
}
