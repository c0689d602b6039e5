//! `GlobalAlloc` over any allocator of this workspace, or over C functions.

use core::{
    alloc::{GlobalAlloc, Layout},
    ffi::c_void,
    ptr::{self, NonNull},
};

use raw_mem::{MAX_REQUEST, MemAlloc, calloc_size, without_unwinding};

use crate::vtable::to_c;

/// The alignment that every [`MemAlloc`] promises, in bytes.
const WORD: usize = size_of::<usize>();

/// A global allocator of a Rust program or library that allocates from `A`.
///
/// Every alignment is supported. If `A` does not [support alignment](MemAlloc::supports_alignment),
/// a block that must be aligned to more than a word is placed inside a larger block of `A`. For an
/// alignment of `n` bytes, the larger block has `n` extra bytes. Reallocating a block that was
/// placed in this way always moves it.
///
/// If `A` panics, the process is aborted, because a global allocator must not unwind.
///
/// ```
/// use allocator_api::{Domain, Global, hooks::Debug, raw_mem::Malloc};
///
/// #[global_allocator]
/// static GLOBAL: Global<Debug<Malloc>> = Global::new(Debug::new(Malloc, Domain::Raw));
///
/// let numbers: Vec<u32> = (0..1000).collect();
/// assert_eq!(numbers.iter().sum::<u32>(), 499_500);
/// ```
///
/// With [`CFunctions`], a Rust extension module can allocate from CPython's raw memory domain.
/// CPython's `tracemalloc` and debug hooks then also cover the memory of the extension.
#[derive(Clone, Copy, Debug, Default)]
pub struct Global<A>(A);

impl<A> Global<A> {
    /// Wraps `below`.
    pub const fn new(below: A) -> Self {
        Self(below)
    }

    /// Returns the allocator below.
    pub const fn below(&self) -> &A {
        &self.0
    }
}

/// How the blocks of a layout get their alignment.
#[derive(Clone, Copy)]
enum Placement {
    /// Every block of `A` has this alignment.
    Any,
    /// `A` aligns the block.
    Below,
    /// We align the block inside a larger block of `A`.
    Ours,
}

impl<A: MemAlloc> Global<A> {
    #[inline]
    fn placement(&self, layout: Layout) -> Placement {
        if layout.align() <= WORD {
            Placement::Any
        } else if self.0.supports_alignment() {
            Placement::Below
        } else {
            Placement::Ours
        }
    }

    #[inline]
    fn malloc(&self, layout: Layout) -> Option<NonNull<u8>> {
        match self.placement(layout) {
            Placement::Any => self.0.malloc(layout.size()),
            Placement::Below => self.0.malloc_aligned(layout.size(), layout.align()),
            Placement::Ours => {
                let base = self.0.malloc(room(layout))?;
                // SAFETY: the block is new and has `room(layout)` bytes.
                Some(unsafe { place(base, layout) })
            }
        }
    }

    #[inline]
    fn calloc(&self, layout: Layout) -> Option<NonNull<u8>> {
        match self.placement(layout) {
            Placement::Any => self.0.calloc(1, layout.size()),
            Placement::Below => {
                let block = self.0.malloc_aligned(layout.size(), layout.align())?;
                // SAFETY: the block is new, and has at least `layout.size()` bytes.
                unsafe { block.write_bytes(0, layout.size()) };
                Some(block)
            }
            Placement::Ours => {
                let base = self.0.calloc(1, room(layout))?;
                // SAFETY: the block is new and has `room(layout)` bytes.
                Some(unsafe { place(base, layout) })
            }
        }
    }

    /// # Safety
    ///
    /// - The requirements of [`GlobalAlloc::dealloc`] must be met.
    #[inline]
    unsafe fn free(&self, start: NonNull<u8>, layout: Layout) {
        let block = match self.placement(layout) {
            Placement::Any | Placement::Below => start,
            // SAFETY: a block of this layout came from `place` (contract).
            Placement::Ours => unsafe { base(start, layout) },
        };
        // SAFETY: the block came from `A`, and is not used again (contract).
        unsafe { self.0.free(Some(block)) };
    }

    /// # Safety
    ///
    /// - The requirements of [`GlobalAlloc::realloc`] must be met.
    #[inline]
    unsafe fn resize(
        &self,
        start: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Option<NonNull<u8>> {
        if !matches!(self.placement(layout), Placement::Ours) {
            // SAFETY: the block came from `A` unchanged, and is live (contract). `A` preserves its
            // alignment (contract of `MemAlloc`).
            return unsafe { self.0.realloc(Some(start), new_size) };
        }
        // SAFETY: the new size is valid with the old alignment (contract).
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        let moved = self.malloc(new)?;
        // SAFETY: both blocks are live, have at least this many bytes and do not overlap. The old
        // block is not used again (contract).
        unsafe {
            moved.copy_from_nonoverlapping(start, layout.size().min(new_size));
            self.free(start, layout);
        }
        Some(moved)
    }
}

/// Returns the number of bytes to request from `A` for an aligned block of this layout.
///
/// The aligned block begins at least one word and at most `align` bytes after the block of `A`.
fn room(layout: Layout) -> usize {
    // A layout has at most isize::MAX bytes after rounding up, so the sum does not overflow.
    layout.size() + layout.align()
}

/// Returns the aligned block inside the block at `base`. Stores its distance from `base` before it.
///
/// # Safety
///
/// - `base` must be a new block with the [`room`] for `layout`.
unsafe fn place(base: NonNull<u8>, layout: Layout) -> NonNull<u8> {
    let distance = layout.align() - (base.addr().get() & (layout.align() - 1));
    // SAFETY: the distance is at most the alignment, for which there is room (contract).
    let start = unsafe { base.add(distance) };
    // SAFETY: the base and the distance are multiples of a word, and the distance is not 0.
    unsafe { start.cast::<usize>().sub(1).write(distance) };
    start
}

/// Returns the block of `A` that contains the aligned block at `start`.
///
/// Returns `start` itself if its distance is invalid, so that `A` can report the bad pointer.
///
/// # Safety
///
/// - The word before `start` must be readable.
unsafe fn base(start: NonNull<u8>, layout: Layout) -> NonNull<u8> {
    // SAFETY: the word is readable (contract).
    let distance = unsafe { start.cast::<usize>().sub(1).read_unaligned() };
    match distance {
        // SAFETY: `place` wrote the distance, so the base is that far before the block.
        WORD.. if distance <= layout.align() => unsafe { start.sub(distance) },
        _ => start,
    }
}

fn or_null(block: Option<NonNull<u8>>) -> *mut u8 {
    block.map_or(ptr::null_mut(), NonNull::as_ptr)
}

// SAFETY: each block has the size of its layout, and is aligned by `A` or by `place`. It comes from
// `A`, which implements `MemAlloc`. No function here unwinds, because a panic of `A` ends the
// process.
unsafe impl<A: MemAlloc> GlobalAlloc for Global<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        or_null(without_unwinding(|| self.malloc(layout)))
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        or_null(without_unwinding(|| self.calloc(layout)))
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        let Some(start) = NonNull::new(ptr) else { return };
        // SAFETY: the contract is the same.
        without_unwinding(|| unsafe { self.free(start, layout) });
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the contract is the same.
        or_null(without_unwinding(|| unsafe { self.resize(NonNull::new(ptr)?, layout, new_size) }))
    }
}

/// An allocator of four C functions, such as those of CPython's domain raw.
///
/// As in CPython, a request for more than [`MAX_REQUEST`] bytes fails before a function is called.
///
/// This is the allocator of a Rust extension that allocates through CPython:
///
/// ```no_run
/// use std::ffi::c_void;
/// use allocator_api::{CFunctions, Global};
///
/// // PyO3 declares the same functions in `pyo3::ffi`.
/// unsafe extern "C" {
///     fn PyMem_RawMalloc(size: usize) -> *mut c_void;
///     fn PyMem_RawCalloc(count: usize, size: usize) -> *mut c_void;
///     fn PyMem_RawRealloc(ptr: *mut c_void, size: usize) -> *mut c_void;
///     fn PyMem_RawFree(ptr: *mut c_void);
/// }
/// # #[cfg(any())]
/// #[global_allocator]
/// // SAFETY: any thread may call the functions of the domain raw, at any time.
/// static GLOBAL: Global<CFunctions> = Global::new(unsafe {
///     CFunctions::new(PyMem_RawMalloc, PyMem_RawCalloc, PyMem_RawRealloc, PyMem_RawFree)
/// });
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CFunctions {
    malloc: unsafe extern "C" fn(usize) -> *mut c_void,
    calloc: unsafe extern "C" fn(usize, usize) -> *mut c_void,
    realloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
}

impl CFunctions {
    /// Creates an allocator that calls these functions.
    ///
    /// # Safety
    ///
    /// - The four functions must meet the requirements of the trait [`MemAlloc`].
    /// - A request for 0 bytes must return a non-null pointer unless memory is exhausted.
    /// - The four functions must be safe to call from any thread at any time.
    pub const unsafe fn new(
        malloc: unsafe extern "C" fn(usize) -> *mut c_void,
        calloc: unsafe extern "C" fn(usize, usize) -> *mut c_void,
        realloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
        free: unsafe extern "C" fn(*mut c_void),
    ) -> Self {
        Self { malloc, calloc, realloc, free }
    }
}

// SAFETY: the functions do what `MemAlloc` promises (contract of `CFunctions::new`).
unsafe impl MemAlloc for CFunctions {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        if size > MAX_REQUEST {
            return None;
        }
        // SAFETY: the function takes any size up to the largest request (contract of `new`).
        NonNull::new(unsafe { (self.malloc)(size) }.cast())
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        calloc_size(count, size)?;
        // SAFETY: the function takes any product up to the largest request (contract of `new`).
        NonNull::new(unsafe { (self.calloc)(count, size) }.cast())
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        if size > MAX_REQUEST {
            return None;
        }
        // SAFETY: the block is null or live (contract of `realloc`).
        NonNull::new(unsafe { (self.realloc)(to_c(ptr), size) }.cast())
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: the block is null or live, and not used again (contract of `free`).
        unsafe { (self.free)(to_c(ptr)) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use raw_mem::{Malloc, NoAlloc};

    use super::*;
    use crate::{
        Domain,
        hooks::{Counting, Debug},
    };

    /// The debug hook checks every block that is freed.
    const CHECKED: Global<Debug<Malloc>> = Global::new(Debug::new(Malloc, Domain::Raw));

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn blocks_of_every_alignment_keep_their_contents() {
        blocks_keep_their_contents(&Global::new(Malloc));
        blocks_keep_their_contents(&CHECKED);
        blocks_keep_their_contents(&Global::new(Counting::new(CHECKED.below(), 512)));
    }

    fn blocks_keep_their_contents(global: &impl GlobalAlloc) {
        for align in [1, 2, 8, 16, 32, 4096, 1 << 20] {
            for size in [1, 8, 100, 5000] {
                // SAFETY: the block has that many bytes. Only what replaces it is used.
                unsafe {
                    let block = global.alloc_zeroed(layout(size, align));
                    assert!(block.addr().is_multiple_of(align));
                    assert!((0..size).all(|at| block.add(at).read() == 0));
                    block.write_bytes(7, size);
                    let grown = global.realloc(block, layout(size, align), size + 50);
                    assert!(grown.addr().is_multiple_of(align));
                    assert!((0..size).all(|at| grown.add(at).read() == 7));
                    grown.write_bytes(8, size + 50);
                    global.dealloc(grown, layout(size + 50, align));
                }
            }
        }
    }

    #[test]
    fn an_aligned_block_below_a_hook_takes_no_additional_bytes() {
        let hook = Counting::new(Debug::new(Malloc, Domain::Raw), 512);
        let global = Global::new(&hook);
        // SAFETY: the layout is not empty, and the block is not used again.
        unsafe { global.dealloc(global.alloc(layout(100, 64)), layout(100, 64)) };
        assert_eq!(hook.counts().small.bytes, 100);
    }

    #[test]
    fn a_request_without_memory_returns_null() {
        let global = Global::new(NoAlloc);
        for align in [1, 64] {
            // SAFETY: the layout is not empty.
            let blocks =
                unsafe { [global.alloc(layout(1, align)), global.alloc_zeroed(layout(1, align))] };
            assert!(blocks.iter().all(|block| block.is_null()));
        }
        // SAFETY: the layout is not empty, and nothing is written.
        let huge = unsafe { Global::new(Malloc).alloc(layout(isize::MAX as usize - 63, 64)) };
        assert!(huge.is_null());
    }

    #[test]
    fn c_functions_are_asked_everything() {
        unsafe extern "C" {
            fn malloc(size: usize) -> *mut c_void;
            fn calloc(count: usize, size: usize) -> *mut c_void;
            fn realloc(ptr: *mut c_void, size: usize) -> *mut c_void;
            fn free(ptr: *mut c_void);
        }
        // SAFETY: the C library's functions meet the requirements for sizes above 0.
        let c = unsafe { CFunctions::new(malloc, calloc, realloc, free) };
        let block = c.calloc(2, 5);
        assert!(block.is_some() && c.malloc(MAX_REQUEST + 1).is_none());
        // SAFETY: the block is live, and replaced by the result, which is not used again.
        unsafe {
            assert!(c.realloc(block, MAX_REQUEST + 1).is_none());
            let grown = c.realloc(block, 100);
            assert_eq!(grown.unwrap().add(9).read(), 0);
            c.free(grown);
        }
    }
}
