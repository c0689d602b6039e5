//! A vtable that C gave us, as an allocator: the way back.

use core::ptr::NonNull;

use raw_mem::{MAX_REQUEST, MemAlloc, calloc_size};

use crate::vtable::{MemAllocator, to_c};

/// Somebody's vtable, as a [`MemAlloc`].
///
/// The checks that CPython makes before it calls a vtable are made here: a request above
/// [`MAX_REQUEST`] bytes is refused and the vtable not called; 0 bytes and null are passed on.
/// CPython: `PyMem_Malloc` and its siblings.
#[derive(Clone, Copy, Debug)]
pub struct Foreign(MemAllocator);

impl Foreign {
    /// An allocator that calls `vtable`.
    ///
    /// # Safety
    ///
    /// As long as the value is in use, the functions of `vtable` keep what [`MemAlloc`] promises
    /// when called with its context, from every thread that calls this value.
    #[inline]
    pub const unsafe fn new(vtable: MemAllocator) -> Self {
        Self(vtable)
    }

    /// The allocator of the vtable of `alloc`.
    ///
    /// ```
    /// # use allocator_api::Foreign;
    /// # use raw_mem::{Malloc, MemAlloc};
    /// static MALLOC: Foreign = Foreign::of(&Malloc);
    /// let block = MALLOC.malloc(40);
    /// // SAFETY: the block is live and not used again.
    /// unsafe { MALLOC.free(block) };
    /// ```
    pub const fn of<A: MemAlloc + Sync>(alloc: &'static A) -> Self {
        // The vtable's functions are A's, which keeps the promises and lives forever.
        Self(MemAllocator::of(alloc))
    }

    /// The vtable that is called.
    #[inline]
    pub const fn vtable(&self) -> MemAllocator {
        self.0
    }

    /// Both call the same vtable.
    pub fn is(&self, other: &Self) -> bool {
        self.0.is(&other.0)
    }
}

// SAFETY: every promise is the vtable's, as whoever made the value promised.
unsafe impl MemAlloc for Foreign {
    #[inline]
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        if size > MAX_REQUEST {
            return None;
        }
        // SAFETY: the promise of `new`.
        NonNull::new(unsafe { (self.0.malloc)(self.0.ctx, size) }.cast())
    }

    #[inline]
    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        calloc_size(count, size)?;
        // SAFETY: the promise of `new`.
        NonNull::new(unsafe { (self.0.calloc)(self.0.ctx, count, size) }.cast())
    }

    #[inline]
    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        if size > MAX_REQUEST {
            return None;
        }
        // SAFETY: the promise of `new`; the block is live, as the caller promises.
        NonNull::new(unsafe { (self.0.realloc)(self.0.ctx, to_c(ptr), size) }.cast())
    }

    #[inline]
    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: the promise of `new`; the block is live and given up, as the caller promises.
        unsafe { (self.0.free)(self.0.ctx, to_c(ptr)) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use raw_mem::Malloc;

    use super::*;

    /// Writes down every call and hands it on to malloc.
    static CALLS: Mutex<Vec<String>> = Mutex::new(Vec::new());

    struct Scribe;

    fn wrote(call: String) {
        CALLS.lock().unwrap().push(call);
    }

    // SAFETY: every promise is malloc's.
    unsafe impl MemAlloc for Scribe {
        fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
            wrote(format!("malloc {size}"));
            Malloc.malloc(size)
        }

        fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
            wrote(format!("calloc {count} {size}"));
            Malloc.calloc(count, size)
        }

        unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
            wrote(format!("realloc {} {size}", ptr.is_some()));
            // SAFETY: the caller's promise.
            unsafe { Malloc.realloc(ptr, size) }
        }

        unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
            wrote(format!("free {}", ptr.is_some()));
            // SAFETY: the caller's promise.
            unsafe { Malloc.free(ptr) }
        }
    }

    #[test]
    fn a_vtable_and_back_passes_every_request_on_as_it_was() {
        let there_and_back = Foreign::of(&Scribe);
        let zero = there_and_back.malloc(0);
        let five = there_and_back.calloc(2, 5);
        // SAFETY: null is allowed; `five` is live and replaced.
        let (new, more) =
            unsafe { (there_and_back.realloc(None, 7), there_and_back.realloc(five, 200)) };
        assert!([zero, five, new, more].iter().all(Option::is_some));
        assert_eq!(there_and_back.malloc(MAX_REQUEST + 1), None);
        assert_eq!(there_and_back.calloc(MAX_REQUEST, 2), None);
        // SAFETY: `more` is live, and stays so because the request is refused.
        assert_eq!(unsafe { there_and_back.realloc(more, MAX_REQUEST + 1) }, None);
        for block in [None, zero, new, more] {
            // SAFETY: null, or a live block that is not used again.
            unsafe { there_and_back.free(block) };
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
    fn somebodys_vtable_may_be_shared_between_threads() {
        const fn shared<T: Send + Sync>() {}
        const { shared::<Foreign>() };
    }
}
