#![doc = include_str!("../README.md")]

#[cfg(not(unix))]
compile_error!("global-alloc needs a Unix, because only there its heaps are tested");

#[cfg(any(feature = "allocator-api2-02", feature = "allocator-api2-04"))]
mod allocator_api;
mod classes;
mod foreign;
mod layouts;
mod local_heap;
mod mem_alloc;
mod ob_malloc;

pub use local_heap::LocalHeap;
pub use ob_malloc::ObMalloc;
/// The types of figures and limits.
pub use obmalloc::{ClassInUse, InUse, Kind, LiveBlock};
/// Re-exported, because [`ObMalloc`] implements a trait of this crate.
pub use raw_mem;
pub use raw_mem::{HugePages, LimitReached, Limits, MemoryPressure};
pub use thread_heap::{Detail, Figures};

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Workspace;
