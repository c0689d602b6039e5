//! CPython's C structures of allocator functions, and a [`MemAlloc`] that calls the functions in
//! such a structure.

use std::{
    ffi::{c_int, c_void},
    ptr::{NonNull, null_mut},
};

use raw_mem::MemAlloc;

/// The number of CPython's raw domain, which `PyMem_RawMalloc` allocates from.
pub(super) const RAW: c_int = 0;
/// The number of CPython's mem domain, which `PyMem_Malloc` allocates from.
pub(super) const MEM: c_int = 1;
/// The number of CPython's object domain, which `PyObject_Malloc` allocates from.
pub(super) const OBJ: c_int = 2;

/// The allocator functions of one domain. In CPython, this structure is `PyMemAllocatorEx`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Vtable {
    ctx: *mut c_void,
    malloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    calloc: unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    realloc: unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void, *mut c_void),
}

/// The functions that map and unmap arenas. In CPython, this structure is `PyObjectArenaAllocator`.
#[repr(C)]
pub(super) struct ArenaVtable {
    pub(super) ctx: *mut c_void,
    pub(super) alloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    pub(super) free: unsafe extern "C" fn(*mut c_void, *mut c_void, usize),
}

fn raw(ptr: Option<NonNull<u8>>) -> *mut c_void {
    ptr.map_or(null_mut(), |ptr| ptr.as_ptr().cast())
}

// SAFETY: CPython's contract for the functions of a domain is the same as that of `MemAlloc`. The
// caller must hold the GIL when it calls these functions. It does, because a `Vtable` is neither
// `Send` nor `Sync` and is therefore used only on the thread that started the interpreter, which
// holds the GIL.
unsafe impl MemAlloc for Vtable {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: CPython passed us the function together with `ctx`. The function accepts any
        // size.
        NonNull::new(unsafe { (self.malloc)(self.ctx, size) }.cast())
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: CPython passed us the function together with `ctx`. The function requires that
        // `count * size` does not overflow, and no test passes numbers whose product overflows.
        NonNull::new(unsafe { (self.calloc)(self.ctx, count, size) }.cast())
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: `ptr` is null or a live block of this allocator (contract of `realloc`).
        NonNull::new(unsafe { (self.realloc)(self.ctx, raw(ptr), size) }.cast())
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: `ptr` is null or a live block of this allocator (contract of `free`).
        unsafe { (self.free)(self.ctx, raw(ptr)) }
    }
}
