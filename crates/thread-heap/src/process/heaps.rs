//! The statics.

#![forbid(unsafe_code)]

use obmalloc::HeapTag;
use raw_mem::{MmapArenas, PageBlocks, RetainingArenas};

use crate::{
    heaps::{Heaps, ThreadHeap},
    parts::ThreadGeometry,
    shared_arenas::SharedArenas,
};

/// What the process's heaps are made of. Their metadata lives on pages of its own, because malloc
/// itself may be built on these heaps.
pub(crate) type CurrentParts = (RetainingArenas<MmapArenas>, PageBlocks, ThreadGeometry);

/// The heaps of the process's threads.
pub type CurrentHeaps = Heaps<CurrentParts>;

pub(super) static HEAPS: CurrentHeaps =
    Heaps::new(RetainingArenas::new(MmapArenas::new()), PageBlocks);

/// The heap of every thread that has none. It never has an arena, so nothing in it changes.
pub(super) static NO_HEAP: ThreadHeap<CurrentParts> =
    ThreadHeap::new(&HEAPS, SharedArenas::NONE, PageBlocks, HeapTag::NONE);
