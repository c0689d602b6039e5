//! The statics that contain the heaps of this process.

#![forbid(unsafe_code)]

use obmalloc::HeapTag;
use raw_mem::{MmapArenas, PageBlocks, RetainingArenas};

use crate::{
    heaps::{Heaps, ThreadHeap},
    parts::ThreadGeometry,
    shared_arenas::SharedArenas,
};

/// The arena source, the metadata allocator and the geometry of the process's heaps. The metadata
/// is allocated from [`PageBlocks`], which maps separate pages for it. It cannot be allocated with
/// malloc, because malloc itself may be implemented with these heaps.
pub(crate) type CurrentParts = (RetainingArenas<MmapArenas>, PageBlocks, ThreadGeometry);

/// The type of the heaps that the threads of the process use.
pub type CurrentHeaps = Heaps<CurrentParts>;

pub(super) static HEAPS: CurrentHeaps =
    Heaps::new(RetainingArenas::new(MmapArenas::new()), PageBlocks);

/// The heap to which the thread-local slot of a thread points while the thread has no heap of its
/// own. This heap never has an arena, so it never changes, and all threads can share it.
pub(super) static NO_HEAP: ThreadHeap<CurrentParts> =
    ThreadHeap::new(&HEAPS, SharedArenas::NONE, PageBlocks, HeapTag::NONE);
