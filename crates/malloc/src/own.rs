//! Functions that the headers of the C library do not declare. `obmalloc.h` declares them.

use std::ffi::{c_char, c_void};

use crate::{c::release_in_force, heap};

/// The memory that this library manages in the process, for all threads. Sizes are in bytes.
///
/// `mapped_bytes` is the sum of `active_bytes`, `retained_bytes` and `purged_bytes`. The figures
/// are approximate while other threads allocate and free memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// The total usable size of all blocks in use.
    pub in_use_bytes: usize,
    /// The size of the pools and mappings that have a block in use, except for purged pages.
    pub active_bytes: usize,
    /// The size of free memory that may still be backed by physical memory.
    pub retained_bytes: usize,
    /// The size of free memory that is not backed by physical memory.
    pub purged_bytes: usize,
    /// The size of all arenas and large mappings.
    pub mapped_bytes: usize,
    /// The largest total size that the arenas of heaps and the large blocks have had at one time.
    pub highwater_bytes: usize,
    /// The approximate total size of freed blocks that still wait for the owner of their heap to
    /// reclaim them.
    pub waiting_bytes: usize,
    /// The number of arenas.
    pub arenas: usize,
    /// The number of heaps. Each running thread that has allocated memory has one. Heaps without an
    /// owner also count.
    pub heaps: usize,
}

/// Returns the version of the library, for example "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn obmalloc_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Counts the memory of all threads, without stopping them.
///
/// The call takes time proportional to the total size of all arenas.
///
/// A signal handler must not call this function. The function waits for a lock that a thread holds
/// while it maps memory. If the signal interrupted such a thread, the handler would wait forever.
///
/// With `OBMALLOC=debug`, the result does not include the blocks of the debug heap.
#[unsafe(no_mangle)]
pub extern "C" fn obmalloc_figures() -> Figures {
    let figures = heap::totals_of_process();
    Figures {
        in_use_bytes: figures.allocated(),
        active_bytes: figures.active(),
        retained_bytes: figures.retained(),
        purged_bytes: figures.purged(),
        mapped_bytes: figures.mapped(),
        highwater_bytes: figures.highwater,
        waiting_bytes: figures.waiting,
        arenas: figures.arenas(),
        heaps: figures.heaps,
    }
}

/// Frees memory that `malloc`, `calloc` or `realloc` returned, as in C23. `size` must be the size
/// that was requested.
///
/// If the program defines its own `free`, this function calls the program's `free` instead.
///
/// # Safety
///
/// - `ptr` must be null or point to live memory.
/// - If the program defines its own `free`, the memory must come from the program's allocator.
///   Otherwise, it must come from this library.
/// - The caller must not use the memory after this call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(ptr: *mut c_void, size: usize) {
    let _ = size;
    // SAFETY: the contract is the same.
    unsafe { release_in_force(ptr) };
}

/// Frees memory that `aligned_alloc` returned, as in C23. `align` and `size` must be the values that
/// were requested.
///
/// If the program defines its own `free`, this function calls the program's `free` instead.
///
/// # Safety
///
/// - `ptr` must be null or point to live memory.
/// - If the program defines its own `free`, the memory must come from the program's allocator.
///   Otherwise, it must come from this library.
/// - The caller must not use the memory after this call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(ptr: *mut c_void, align: usize, size: usize) {
    let _ = (align, size);
    // SAFETY: the contract is the same.
    unsafe { release_in_force(ptr) };
}
