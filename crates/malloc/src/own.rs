//! Functions that the headers of the C library do not declare. `obmalloc.h` declares them.

use std::ffi::{c_char, c_void};

use crate::{c::release, heap};

/// How much memory the library has mapped, and how much of it is in use. Sizes are in bytes.
///
/// The fields about arenas cover only the calling thread's heap and the heaps of ended threads.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// The size of all arenas.
    pub arena_bytes: usize,
    /// The total size of the blocks in use inside arenas.
    pub in_use_bytes: usize,
    /// The number of heaps that are counted.
    pub counted_heaps: usize,
    /// The number of heaps that are not counted, because other threads are using them.
    pub other_heaps: usize,
    /// The number of large blocks of the process, which are outside of arenas.
    pub large_blocks: usize,
    /// The total size of the large blocks.
    pub large_bytes: usize,
}

/// Returns the version of the library, for example "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn obmalloc_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Counts the memory of the library. This takes time proportional to the number of pools.
#[unsafe(no_mangle)]
pub extern "C" fn obmalloc_figures() -> Figures {
    let heap::Figures { pools, large_blocks, large_bytes } = heap::figures();
    Figures {
        arena_bytes: pools.total.bytes.total(),
        in_use_bytes: pools.total.bytes.in_use,
        counted_heaps: pools.walked,
        other_heaps: pools.elsewhere,
        large_blocks,
        large_bytes,
    }
}

/// Frees memory of `malloc`, `calloc` or `realloc`, as in C23. `size` must be the requested size.
///
/// # Safety
///
/// - `ptr` must be null or point to live memory of this library that is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(ptr: *mut c_void, size: usize) {
    let _ = size;
    // SAFETY: the contract is the same.
    unsafe { release(ptr) };
}

/// Frees memory of `aligned_alloc`, as in C23. `align` and `size` must be the requested values.
///
/// # Safety
///
/// - `ptr` must be null or point to live memory of this library that is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(ptr: *mut c_void, align: usize, size: usize) {
    let _ = (align, size);
    // SAFETY: the contract is the same.
    unsafe { release(ptr) };
}
