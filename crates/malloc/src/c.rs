//! `malloc` and the functions of `<stdlib.h>` that belong to it.
//!
//! Functions of this library call each other directly rather than by an exported symbol, because
//! the dynamic loader could bind the symbol to a different library. A few functions must call the
//! program's own version of a function, such as its `free`, if there is one. The modules `in_force`
//! and `cpp/in_force` find this version.

use std::{
    ffi::c_void,
    ptr::{self, NonNull},
};

use crate::{
    heap::{self, MIN_ALIGN},
    in_force,
};

/// Converts a block to a C pointer, and `None` to null.
#[inline]
pub(crate) fn or_null(block: Option<NonNull<u8>>) -> *mut c_void {
    block.map_or(ptr::null_mut(), |block| block.as_ptr().cast())
}

/// Frees the memory at `ptr`, which may be null.
///
/// # Safety
///
/// - `ptr` must be null or point to a live block that was allocated by this library.
/// - The caller must not use the block after this call.
#[inline]
pub(crate) unsafe fn release(ptr: *mut c_void) {
    if let Some(block) = NonNull::new(ptr.cast()) {
        // SAFETY: the block is live and not used again (contract of `release`).
        unsafe { heap::free(block) };
    }
}

/// Frees the memory at `ptr`, which may be null. Calls the program's `free` if it has its own.
///
/// # Safety
///
/// - `ptr` must be null or point to a live block.
/// - If the program has its own `free`, the block must come from the program's allocator.
///   Otherwise, the block must come from this library.
/// - The caller must not use the block after this call.
#[inline]
pub(crate) unsafe fn release_in_force(ptr: *mut c_void) {
    match in_force::free_of_program() {
        // SAFETY: the contract is the same.
        Some(free) => unsafe { free(ptr) },
        // SAFETY: the program has no `free` of its own, so the block is ours (contract).
        None => unsafe { release(ptr) },
    }
}

/// Allocates `count * size` zeroed bytes.
#[inline]
pub(crate) fn zeroed(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(bytes) => or_null(heap::alloc_zeroed(bytes, MIN_ALIGN)),
        None => or_null(heap::refuse()),
    }
}

/// Allocates, frees or resizes memory, as [`realloc`] describes.
///
/// # Safety
///
/// - The requirements of [`realloc`] must be met.
#[inline]
pub(crate) unsafe fn resized(ptr: *mut c_void, size: usize) -> *mut c_void {
    let Some(block) = NonNull::new(ptr.cast()) else {
        return or_null(heap::alloc(size, MIN_ALIGN));
    };
    if size == 0 {
        // SAFETY: the block is live, and a `realloc` to size 0 gives it up (contract).
        unsafe { heap::free(block) };
        return ptr::null_mut();
    }
    // SAFETY: the block is live, and the caller uses only the result from now on (contract).
    or_null(unsafe { heap::resize(block, size) })
}

/// Allocates `size` bytes, aligned to 16. A size of 0 yields a unique pointer.
///
/// Returns null with `ENOMEM` if there is no memory.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    or_null(heap::alloc(size, MIN_ALIGN))
}

/// Allocates `count * size` zeroed bytes, like [`malloc`].
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    zeroed(count, size)
}

/// Frees the memory at `ptr`, which may be null. `errno` is unchanged.
///
/// # Safety
///
/// - `ptr` must be null or point to a live block that was allocated by this library.
/// - The caller must not use the block after this call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(ptr: *mut c_void) {
    // SAFETY: the contract is the same.
    unsafe { release(ptr) };
}

/// Resizes the memory at `ptr`, and moves it if necessary.
///
/// If `ptr` is null, the function allocates new memory. If `ptr` is not null but `size` is 0, it
/// frees the memory and returns null.
///
/// If no memory is available, the function returns null, sets `errno` to `ENOMEM`, and leaves the
/// old memory unchanged.
///
/// # Safety
///
/// - `ptr` must be null or point to a live block that was allocated by this library.
/// - If the function frees or moves the block, the caller must not use `ptr` again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(ptr: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the contract is the same.
    unsafe { resized(ptr, size) }
}

/// Resizes the memory at `ptr` to `count * size` bytes, like [`realloc`]. If the program has its
/// own `realloc`, this function calls it.
///
/// # Safety
///
/// - The requirements of the `realloc` that is in force must be met.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(ptr: *mut c_void, count: usize, size: usize) -> *mut c_void {
    let Some(bytes) = count.checked_mul(size) else { return or_null(heap::refuse()) };
    match in_force::realloc_of_program() {
        // SAFETY: the contract is the same.
        Some(realloc) => unsafe { realloc(ptr, bytes) },
        // SAFETY: the contract is the same, because the program has no `realloc` of its own.
        None => unsafe { resized(ptr, bytes) },
    }
}

/// Returns how many bytes the program may use at `ptr`, or 0 if `ptr` is null.
///
/// If the program has its own `free`, it may pass a block of its own allocator. The function then
/// returns 0, because it cannot find out the size of this block. In debug mode, the program must
/// not pass such a block.
///
/// A program's own allocator may take memory from this library and put a header before each block.
/// Such a program must define its own `malloc_usable_size`, because its blocks do not begin where
/// ours do.
///
/// # Safety
///
/// - In debug mode, `ptr` must be null or point to a live block of this library.
/// - Otherwise, `ptr` must be null, point to a live block of this library, or point outside of this
///   library's memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(ptr: *mut c_void) -> usize {
    // SAFETY: the contract is the same.
    NonNull::new(ptr.cast()).map_or(0, |block| unsafe { heap::usable_size(block) })
}
