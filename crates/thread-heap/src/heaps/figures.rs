//! The memory of all heaps together, counted without stopping their owners.
//!
//! ```text
//!   mapped ──┬── active ──┬── allocated    blocks in use
//!            │            ├── waiting      freed by one thread, not yet reclaimed by the owner
//!            │            └── the rest     free blocks beside blocks in use
//!            ├── retained                  free, and still backed by memory
//!            └── purged                    free, without memory
//! ```
//!
//! The header of each pool stores how many of the pool's blocks are in use. The counting thread
//! only reads these headers, so other threads allocate and free blocks as fast as before. To read
//! the amounts of mapped and retained memory, the counting thread holds the lock of the shared
//! arena source, which protects them. If a thread frees a block of another thread's heap, the block
//! waits in this heap's inbox until the heap's owner reclaims it, so each inbox counts its waiting
//! bytes.

#![forbid(unsafe_code)]

use obmalloc::{ArenaFigures, ArenaTotals, ClassInUse, InUse, Kind, LargeBlock};
use raw_mem::{ArenaSource, Limits};
use sync::atomic::Ordering::Relaxed;

use super::Heaps;
use crate::{parts::Parts, shared_source::Locked};

/// The memory of all heaps of a family at one moment, in bytes.
///
/// The numbers are approximate, because other threads may allocate and free memory
/// while [`Heaps::figures`] counts. If no other thread is running, all numbers are exact, apart
/// from [`waiting`](Self::waiting), the size of freed blocks that their owners have not yet
/// reclaimed, and [`allocated`](Self::allocated), which excludes these blocks.
///
/// `A` is [`ArenaTotals`] if the size classes were not counted. Such a value takes much less memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures<A = ArenaFigures> {
    arenas: A,
    large: InUse,
    /// The approximate size of freed blocks that their owners have not yet reclaimed.
    ///
    /// Excludes blocks that wait in an outbox.
    pub waiting: usize,
    /// The size of the free arenas and large mappings that the source retains.
    pub retained_by_source: usize,
    /// The size of the free large mappings that heaps retain.
    pub retained_by_heaps: usize,
    /// The largest total size that the arenas of heaps and the large blocks have had.
    pub highwater: usize,
    /// The number of heaps, whether or not they have an owner.
    pub heaps: usize,
    /// The limits of the process.
    pub limits: Limits,
}

impl<A: AsRef<ArenaTotals>> Figures<A> {
    /// Returns the total usable size of all blocks in use, in bytes. Excludes blocks
    /// that [wait](Self::waiting).
    ///
    /// A block can have more usable bytes than were requested. A large block is usable up to the
    /// end of its mapping. Any other block has the block size of its class.
    pub fn allocated(&self) -> usize {
        let all: usize = Kind::ALL.iter().map(|kind| self.of_kind(*kind).allocated).sum();
        all.saturating_sub(self.waiting)
    }

    /// Returns the bytes of all pools and mappings that have a block in use, except for purged pages.
    pub fn active(&self) -> usize {
        self.arenas.as_ref().active() + self.large.active
    }

    /// Returns the bytes that are free and may still be backed by memory.
    pub fn retained(&self) -> usize {
        self.arenas.as_ref().retained() + self.retained_by_heaps + self.retained_by_source
    }

    /// Returns the bytes that are not backed by memory: free units that were never used, and purged
    /// pages.
    pub fn purged(&self) -> usize {
        self.arenas.as_ref().purged()
    }

    /// Returns the bytes of all arenas and large mappings: active, retained and purged.
    pub fn mapped(&self) -> usize {
        self.active() + self.retained() + self.purged()
    }

    /// Returns the number of arenas.
    pub fn arenas(&self) -> usize {
        self.arenas.as_ref().arenas()
    }

    /// Returns the blocks in use of one kind of memory. Blocks that [wait](Self::waiting) are
    /// included.
    pub fn of_kind(&self, kind: Kind) -> InUse {
        if kind == Kind::Large { self.large } else { self.arenas.as_ref().of_kind(kind) }
    }
}

impl Figures {
    /// Returns the blocks in use of each size class, in ascending order of size.
    ///
    /// Blocks that [wait](Self::waiting) are included. Large blocks are not.
    pub fn classes(&self) -> &[ClassInUse] {
        self.arenas.classes()
    }
}

impl<P: Parts> Heaps<P> {
    /// Counts the memory of all heaps without stopping their owners. O(heaps + units of arenas).
    ///
    /// This function holds the lock of the arena source that all heaps share. The owner of a heap
    /// therefore has to wait only if it needs this source during the call, for example to map or
    /// unmap an arena. To find the arenas, the function follows a linked list whose nodes lie in
    /// the arenas. The arenas of CPython's geometries have no space for such a node, so the
    /// function counts only the arenas of the geometry [`Native`](obmalloc::Native).
    pub fn figures(&self) -> Figures {
        self.figures_of(&mut self.shared.lock(), |locked| self.shared.count_arenas(locked))
    }

    /// Like [`figures`](Self::figures), but without the size classes.
    ///
    /// A call of this function needs about 1 KiB of stack, and a call of `figures` about 11 KiB.
    pub fn totals(&self) -> Figures<ArenaTotals> {
        self.figures_of(&mut self.shared.lock(), |locked| self.shared.total_arenas(locked))
    }

    /// Like [`figures`](Self::figures), but returns `None` while a thread maps or unmaps memory.
    pub fn try_figures(&self) -> Option<Figures> {
        let count = |locked: &_| self.shared.count_arenas(locked);
        self.shared.try_lock().map(|mut locked| self.figures_of(&mut locked, count))
    }

    fn figures_of<A>(
        &self,
        locked: &mut Locked<P::Source>,
        count_arenas: impl FnOnce(&Locked<P::Source>) -> A,
    ) -> Figures<A> {
        let (blocks, bytes) = self.large_blocks();
        let before = blocks * LargeBlock::OVERHEAD + self.shared.large_alignment.load(Relaxed);
        Figures {
            arenas: count_arenas(locked),
            large: InUse::new(blocks, bytes.saturating_sub(before), bytes),
            waiting: self.list.iter().map(|heap| heap.inbox.all_waiting()).sum(),
            retained_by_source: locked.source.retained_bytes(),
            retained_by_heaps: self.retained_large().1,
            highwater: locked.usage.highwater(),
            heaps: self.list.iter().count(),
            limits: locked.usage.limits(),
        }
    }
}
