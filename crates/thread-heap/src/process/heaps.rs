//! The statics that contain the heaps of this process.

#![forbid(unsafe_code)]

use obmalloc::HeapTag;
use raw_mem::{MmapArenas, PageBlocks, ReservedArenas, RetainingArenas};

use crate::{
    heaps::{Heaps, ThreadHeap},
    parts::ThreadGeometry,
    shared_arenas::SharedArenas,
};

/// The arena source, the metadata allocator and the geometry of the process's heaps.
///
/// Metadata comes from [`PageBlocks`], because malloc itself may be implemented with these heaps.
pub(crate) type CurrentParts = (Source, PageBlocks, ThreadGeometry);

/// The arena source of the process's heaps.
pub(super) type Source = RetainingArenas<ReservedArenas<MmapArenas>>;

/// The type of the heaps that the threads of the process use.
pub type CurrentHeaps = Heaps<CurrentParts>;

pub(super) static HEAPS: CurrentHeaps =
    Heaps::new(RetainingArenas::new(ReservedArenas::new(MmapArenas::new())), PageBlocks);

/// The heap of threads that have none. It has no arena and never changes, so threads can share it.
pub(super) static NO_HEAP: ThreadHeap<CurrentParts> =
    ThreadHeap::new(&HEAPS, SharedArenas::NONE, PageBlocks, HeapTag::NONE);
