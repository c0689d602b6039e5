use std::{
    ffi::{c_int, c_void},
    ptr::{NonNull, null_mut},
};

use raw_mem::MemAlloc;

/// The numbers of CPython's domains.
pub(super) const RAW: c_int = 0;
pub(super) const MEM: c_int = 1;
pub(super) const OBJ: c_int = 2;

/// The allocator functions of one domain. CPython: `PyMemAllocatorEx`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Vtable {
    ctx: *mut c_void,
    malloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    calloc: unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    realloc: unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void, *mut c_void),
}

/// CPython: `PyObjectArenaAllocator`.
#[repr(C)]
pub(super) struct ArenaVtable {
    pub(super) ctx: *mut c_void,
    pub(super) alloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    pub(super) free: unsafe extern "C" fn(*mut c_void, *mut c_void, usize),
}

fn raw(ptr: Option<NonNull<u8>>) -> *mut c_void {
    ptr.map_or(null_mut(), |ptr| ptr.as_ptr().cast())
}

// SAFETY: while the GIL is held, CPython's functions do what `MemAlloc` promises. The thread that
// started the interpreter holds it, and a `Vtable` stays there, as it is neither `Send` nor `Sync`.
unsafe impl MemAlloc for Vtable {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: CPython passed us the function with this `ctx`. It accepts any size.
        NonNull::new(unsafe { (self.malloc)(self.ctx, size) }.cast())
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: CPython passed us the function with this `ctx`. No test overflows `count * size`.
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
