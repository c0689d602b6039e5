use core::{
    ffi::c_void,
    mem::offset_of,
    ptr::{self, NonNull},
};

use raw_mem::MemAlloc;

/// The functions of an allocator, and their context pointer. CPython: `PyMemAllocatorEx`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct VTable {
    /// The first argument of every function.
    pub ctx: *mut c_void,
    /// Allocates `size` bytes, which may be 0. Returns null if the allocation fails.
    pub malloc: unsafe extern "C" fn(ctx: *mut c_void, size: usize) -> *mut c_void,
    /// Allocates `nelem * elsize` zeroed bytes. Returns null if the allocation fails.
    pub calloc: unsafe extern "C" fn(ctx: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void,
    /// Resizes the block at `ptr`, which may be null. On failure, returns null and keeps the block.
    ///
    /// A `new_size` of 0 does not free the block.
    pub realloc:
        unsafe extern "C" fn(ctx: *mut c_void, ptr: *mut c_void, new_size: usize) -> *mut c_void,
    /// Frees the block at `ptr`, which may be null.
    pub free: unsafe extern "C" fn(ctx: *mut c_void, ptr: *mut c_void),
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<VTable>() == 40 && align_of::<VTable>() == 8);
    assert!(offset_of!(VTable, ctx) == 0 && offset_of!(VTable, malloc) == 8);
    assert!(offset_of!(VTable, calloc) == 16 && offset_of!(VTable, realloc) == 24);
    assert!(offset_of!(VTable, free) == 32);
};

// SAFETY: a vtable consists of five addresses, and only unsafe code uses what they point to.
unsafe impl Send for VTable {}
// SAFETY: a vtable consists of five addresses, and only unsafe code uses what they point to.
unsafe impl Sync for VTable {}

impl VTable {
    /// Returns the vtable of `alloc`.
    ///
    /// ```
    /// # use allocator_api::VTable;
    /// # use raw_mem::Malloc;
    /// static VTABLE: VTable = VTable::of(&Malloc);
    /// ```
    pub const fn of<A: MemAlloc + Sync>(alloc: &'static A) -> Self {
        Self {
            ctx: ptr::from_ref(alloc).cast_mut().cast(),
            malloc: malloc::<A>,
            calloc: calloc::<A>,
            realloc: realloc::<A>,
            free: free::<A>,
        }
    }

    /// Returns true if both vtables have the same context and the same functions.
    pub fn is(&self, other: &Self) -> bool {
        self.ctx == other.ctx
            && ptr::fn_addr_eq(self.malloc, other.malloc)
            && ptr::fn_addr_eq(self.calloc, other.calloc)
            && ptr::fn_addr_eq(self.realloc, other.realloc)
            && ptr::fn_addr_eq(self.free, other.free)
    }
}

#[inline]
pub(crate) fn to_c(block: Option<NonNull<u8>>) -> *mut c_void {
    block.map_or(ptr::null_mut(), NonNull::as_ptr).cast()
}

// Contract of the functions that `VTable::of` puts into a vtable:
//
// - `ctx` must be the context of a vtable that `VTable::of` made with the same type parameter `A`.
// - The `block` that is passed to `realloc` or `free` must be null or a live block of the allocator
//   to which `ctx` points.
// - The caller must not use `block` after passing it to `free`, or to a `realloc` that succeeded.

unsafe extern "C" fn malloc<A: MemAlloc>(ctx: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: `ctx` belongs to an `A` (contract of the vtable's functions).
    to_c(unsafe { from_ctx::<A>(ctx) }.malloc(size))
}

unsafe extern "C" fn calloc<A: MemAlloc>(
    ctx: *mut c_void,
    nelem: usize,
    elsize: usize,
) -> *mut c_void {
    // SAFETY: `ctx` belongs to an `A` (contract of the vtable's functions).
    to_c(unsafe { from_ctx::<A>(ctx) }.calloc(nelem, elsize))
}

unsafe extern "C" fn realloc<A: MemAlloc>(
    ctx: *mut c_void,
    block: *mut c_void,
    new_size: usize,
) -> *mut c_void {
    // SAFETY: `ctx` belongs to an `A` (contract of the vtable's functions).
    let alloc = unsafe { from_ctx::<A>(ctx) };
    // SAFETY: `block` is null or a live block of `alloc` (contract of the vtable's functions).
    to_c(unsafe { alloc.realloc(NonNull::new(block.cast()), new_size) })
}

unsafe extern "C" fn free<A: MemAlloc>(ctx: *mut c_void, block: *mut c_void) {
    // SAFETY: `ctx` belongs to an `A` (contract of the vtable's functions).
    let alloc = unsafe { from_ctx::<A>(ctx) };
    // SAFETY: `block` is null or live, and not used again (contract of the vtable's functions).
    unsafe { alloc.free(NonNull::new(block.cast())) }
}

/// # Safety
///
/// - `ctx` must be the context of a vtable that [`VTable::of`] made for an `A`.
unsafe fn from_ctx<'a, A>(ctx: *mut c_void) -> &'a A {
    // SAFETY: `ctx` is a `&'static A` (contract of `from_ctx`).
    unsafe { &*ctx.cast::<A>() }
}

#[cfg(test)]
mod tests {
    use raw_mem::{Malloc, NoAlloc};

    use super::*;

    #[test]
    fn vtables_are_the_same_if_all_five_words_are() {
        static PLACES: [u8; 2] = [0; 2];
        let [one, other] = PLACES.each_ref().map(|place| ptr::from_ref(place).cast_mut().cast());
        let malloc = VTable { ctx: one, ..VTable::of(&Malloc) };
        let none = VTable::of(&NoAlloc);
        assert!(malloc.is(&malloc.clone()));
        let others = [
            VTable { ctx: other, ..malloc },
            VTable { malloc: none.malloc, ..malloc },
            VTable { calloc: none.calloc, ..malloc },
            VTable { realloc: none.realloc, ..malloc },
            VTable { free: none.free, ..malloc },
        ];
        assert!(others.iter().all(|vtable| !malloc.is(vtable)));
    }

    #[test]
    fn a_vtable_may_be_shared_between_threads() {
        const fn shared<T: Send + Sync>() {}
        const { shared::<VTable>() };
    }
}
