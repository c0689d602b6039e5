//! The statics that contain the heaps of this process.

#![forbid(unsafe_code)]

use obmalloc::HeapTag;
use raw_mem::{MmapArenas, PageBlocks, RetainingArenas};

use crate::{
    heaps::{Heaps, ThreadHeap},
    parts::ThreadGeometry,
    shared_arenas::SharedArenas,
};

/// The source, the allocator of metadata and the geometry of the process's heaps. The metadata
/// lives on pages of its own. It cannot come from malloc, because malloc itself may be built on
/// these heaps.
pub(crate) type CurrentParts = (RetainingArenas<MmapArenas>, PageBlocks, ThreadGeometry);

/// The type of the heaps that the threads of the process use.
pub type CurrentHeaps = Heaps<CurrentParts>;

pub(super) static HEAPS: CurrentHeaps =
    Heaps::new(RetainingArenas::new(MmapArenas::new()), PageBlocks);

/// The heap to which the slot of a thread points while the thread has no heap. It never has an
/// arena, so it never changes, and all threads can share it.
pub(super) static NO_HEAP: ThreadHeap<CurrentParts> =
    ThreadHeap::new(&HEAPS, SharedArenas::NONE, PageBlocks, HeapTag::NONE);
