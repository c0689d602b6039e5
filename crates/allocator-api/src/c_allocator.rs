use core::ptr::NonNull;

use raw_mem::{MAX_REQUEST, MemAlloc, calloc_size};

use crate::vtable::{VTable, to_c};

/// An allocator that calls the functions of a [`VTable`]. CPython: `PyMem_Malloc` and its siblings.
///
/// As in CPython, a request for more than [`MAX_REQUEST`] bytes fails before the vtable is called.
#[derive(Clone, Copy, Debug)]
pub struct CAllocator(VTable);

impl CAllocator {
    /// Wraps `vtable`.
    ///
    /// # Safety
    ///
    /// - When called with `vtable.ctx`, the functions in `vtable` must meet the requirements of
    ///   [`MemAlloc`].
    /// - The functions must be safe to call from every thread that uses the returned allocator.
    /// - The functions must stay valid for as long as the returned allocator is in use.
    ///
    /// These requirements also apply to every copy of the allocator.
    #[inline]
    pub const unsafe fn new(vtable: VTable) -> Self {
        Self(vtable)
    }

    /// Wraps the vtable of `alloc`.
    ///
    /// `alloc` must be `'static`, because other threads may still be calling it after it is
    /// replaced.
    ///
    /// ```
    /// # use allocator_api::CAllocator;
    /// # use raw_mem::{Malloc, MemAlloc};
    /// static MALLOC: CAllocator = CAllocator::of(&Malloc);
    /// let block = MALLOC.malloc(40);
    /// // SAFETY: the block is live and not used again.
    /// unsafe { MALLOC.free(block) };
    /// ```
    pub const fn of<A: MemAlloc + Sync>(alloc: &'static A) -> Self {
        // The contract of `new` holds: `A` implements `MemAlloc`, and `alloc` is never dropped.
        Self(VTable::of(alloc))
    }

    /// Returns the vtable.
    #[inline]
    pub const fn vtable(&self) -> VTable {
        self.0
    }

    /// Returns true if both allocators call the same functions with the same context.
    pub fn is(&self, other: &Self) -> bool {
        self.0.is(&other.0)
    }
}

// SAFETY: the functions of the vtable do what `MemAlloc` promises (contract of `CAllocator::new`).
unsafe impl MemAlloc for CAllocator {
    #[inline]
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        if size > MAX_REQUEST {
            return None;
        }
        // SAFETY: the context is the vtable's (contract of `new`).
        NonNull::new(unsafe { (self.0.malloc)(self.0.ctx, size) }.cast())
    }

    #[inline]
    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        calloc_size(count, size)?;
        // SAFETY: the context is the vtable's (contract of `new`).
        NonNull::new(unsafe { (self.0.calloc)(self.0.ctx, count, size) }.cast())
    }

    #[inline]
    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        if size > MAX_REQUEST {
            return None;
        }
        // SAFETY: the context is the vtable's. `ptr` is null or live (contract of `realloc`).
        NonNull::new(unsafe { (self.0.realloc)(self.0.ctx, to_c(ptr), size) }.cast())
    }

    #[inline]
    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: the context is the vtable's. `ptr` is null or live (contract of `free`).
        unsafe { (self.0.free)(self.0.ctx, to_c(ptr)) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use raw_mem::Malloc;

    use super::*;

    static CALLS: Mutex<Vec<String>> = Mutex::new(Vec::new());

    struct Logging;

    fn log(call: String) {
        CALLS.lock().unwrap().push(call);
    }

    // SAFETY: every call is passed to malloc unchanged.
    unsafe impl MemAlloc for Logging {
        fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
            log(format!("malloc {size}"));
            Malloc.malloc(size)
        }

        fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
            log(format!("calloc {count} {size}"));
            Malloc.calloc(count, size)
        }

        unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
            log(format!("realloc {} {size}", ptr.is_some()));
            // SAFETY: `ptr` is null or a live block of malloc (contract of `realloc`).
            unsafe { Malloc.realloc(ptr, size) }
        }

        unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
            log(format!("free {}", ptr.is_some()));
            // SAFETY: `ptr` is null or a live block of malloc (contract of `free`).
            unsafe { Malloc.free(ptr) }
        }
    }

    #[test]
    fn every_request_passes_through_a_vtable_unchanged() {
        let through_c = CAllocator::of(&Logging);
        let zero = through_c.malloc(0);
        let five = through_c.calloc(2, 5);
        // SAFETY: null is allowed. `five` is live and not used again.
        let (new, more) = unsafe { (through_c.realloc(None, 7), through_c.realloc(five, 200)) };
        assert!([zero, five, new, more].iter().all(Option::is_some));
        assert_eq!(through_c.malloc(MAX_REQUEST + 1), None);
        assert_eq!(through_c.calloc(MAX_REQUEST, 2), None);
        // SAFETY: `more` is live. It stays live, because the request is rejected.
        assert_eq!(unsafe { through_c.realloc(more, MAX_REQUEST + 1) }, None);
        for block in [None, zero, new, more] {
            // SAFETY: null, or a live block that is not used again.
            unsafe { through_c.free(block) };
        }
        let expected = [
            "malloc 0",
            "calloc 2 5",
            "realloc false 7",
            "realloc true 200",
            "free false",
            "free true",
            "free true",
            "free true",
        ];
        assert_eq!(*CALLS.lock().unwrap(), expected);
    }

    #[test]
    fn a_c_allocator_may_be_shared_between_threads() {
        const fn shared<T: Send + Sync>() {}
        const { shared::<CAllocator>() };
    }
}
