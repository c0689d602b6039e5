//! An allocator as C sees it: five words.
//!
//! ```text
//!   0      8        16       24        32     40
//!   ┌──────┬────────┬────────┬─────────┬──────┐
//!   │ ctx  │ malloc │ calloc │ realloc │ free │   MemAllocator
//!   └──┬───┴────────┴────────┴─────────┴──────┘
//!      └─► a MemAlloc, for the shims of `of`; anything, for another library's functions
//! ```

use core::{
    ffi::c_void,
    mem::offset_of,
    ptr::{self, NonNull},
};

use raw_mem::MemAlloc;

/// A table of functions and the context that each of them is given. CPython: `PyMemAllocatorEx`.
///
/// To have one is to have five addresses; calling through it is what needs care, see
/// [`Foreign::new`](crate::Foreign::new).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MemAllocator {
    /// The first argument of every function.
    pub ctx: *mut c_void,
    /// Allocates `size` bytes, of which there may be none; null when there is no memory.
    pub malloc: unsafe extern "C" fn(ctx: *mut c_void, size: usize) -> *mut c_void,
    /// Allocates `nelem * elsize` zeroed bytes.
    pub calloc: unsafe extern "C" fn(ctx: *mut c_void, nelem: usize, elsize: usize) -> *mut c_void,
    /// Moves or keeps the block at `ptr`; allocates when `ptr` is null, and never frees.
    pub realloc:
        unsafe extern "C" fn(ctx: *mut c_void, ptr: *mut c_void, new_size: usize) -> *mut c_void,
    /// Frees the block at `ptr`, which may be null.
    pub free: unsafe extern "C" fn(ctx: *mut c_void, ptr: *mut c_void),
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<MemAllocator>() == 40 && align_of::<MemAllocator>() == 8);
    assert!(offset_of!(MemAllocator, ctx) == 0 && offset_of!(MemAllocator, malloc) == 8);
    assert!(offset_of!(MemAllocator, calloc) == 16 && offset_of!(MemAllocator, realloc) == 24);
    assert!(offset_of!(MemAllocator, free) == 32);
};

// SAFETY: five addresses; using them is for those who promise that it is right.
unsafe impl Send for MemAllocator {}
// SAFETY: as above.
unsafe impl Sync for MemAllocator {}

impl MemAllocator {
    /// The vtable of `alloc`.
    ///
    /// ```
    /// # use allocator_api::MemAllocator;
    /// # use raw_mem::Malloc;
    /// static VTABLE: MemAllocator = MemAllocator::of(&Malloc);
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

    /// Both are the same five words.
    pub fn is(&self, other: &Self) -> bool {
        self.ctx == other.ctx
            && ptr::fn_addr_eq(self.malloc, other.malloc)
            && ptr::fn_addr_eq(self.calloc, other.calloc)
            && ptr::fn_addr_eq(self.realloc, other.realloc)
            && ptr::fn_addr_eq(self.free, other.free)
    }
}

/// A block, or the lack of one, as C has it.
#[inline]
pub(crate) fn to_c(block: Option<NonNull<u8>>) -> *mut c_void {
    block.map_or(ptr::null_mut(), NonNull::as_ptr).cast()
}

/// Calls `A::malloc`.
///
/// # Safety
///
/// `ctx` is the reference that [`MemAllocator::of`] was given; so for the other three.
unsafe extern "C" fn malloc<A: MemAlloc>(ctx: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller's promise; the referent is `'static`.
    to_c(unsafe { &*ctx.cast::<A>() }.malloc(size))
}

/// Calls `A::calloc`.
///
/// # Safety
///
/// As for [`malloc`].
unsafe extern "C" fn calloc<A: MemAlloc>(
    ctx: *mut c_void,
    nelem: usize,
    elsize: usize,
) -> *mut c_void {
    // SAFETY: as in `malloc`.
    to_c(unsafe { &*ctx.cast::<A>() }.calloc(nelem, elsize))
}

/// Calls `A::realloc`.
///
/// # Safety
///
/// As for [`malloc`], and for [`MemAlloc::realloc`].
unsafe extern "C" fn realloc<A: MemAlloc>(
    ctx: *mut c_void,
    block: *mut c_void,
    new_size: usize,
) -> *mut c_void {
    // SAFETY: as in `malloc`.
    let alloc = unsafe { &*ctx.cast::<A>() };
    // SAFETY: the caller gives null or a live block of this allocator.
    to_c(unsafe { alloc.realloc(NonNull::new(block.cast()), new_size) })
}

/// Calls `A::free`.
///
/// # Safety
///
/// As for [`malloc`], and for [`MemAlloc::free`].
unsafe extern "C" fn free<A: MemAlloc>(ctx: *mut c_void, block: *mut c_void) {
    // SAFETY: as in `malloc`.
    let alloc = unsafe { &*ctx.cast::<A>() };
    // SAFETY: the caller gives null or a live block of this allocator, and gives it up.
    unsafe { alloc.free(NonNull::new(block.cast())) }
}

#[cfg(test)]
mod tests {
    use raw_mem::{Malloc, NoAlloc};

    use super::*;

    #[test]
    fn vtables_are_the_same_when_all_five_words_are() {
        static PLACES: [u8; 2] = [0; 2];
        let [one, other] = PLACES.each_ref().map(|place| ptr::from_ref(place).cast_mut().cast());
        let malloc = MemAllocator { ctx: one, ..MemAllocator::of(&Malloc) };
        let none = MemAllocator::of(&NoAlloc);
        assert!(malloc.is(&malloc.clone()));
        let others = [
            MemAllocator { ctx: other, ..malloc },
            MemAllocator { malloc: none.malloc, ..malloc },
            MemAllocator { calloc: none.calloc, ..malloc },
            MemAllocator { realloc: none.realloc, ..malloc },
            MemAllocator { free: none.free, ..malloc },
        ];
        assert!(others.iter().all(|vtable| !malloc.is(vtable)));
    }

    #[test]
    fn a_vtable_may_be_shared_between_threads() {
        const fn shared<T: Send + Sync>() {}
        const { shared::<MemAllocator>() };
    }
}
