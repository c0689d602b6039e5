//! Requests of any layout, for memory from the pools or from the C library.
//!
//! ```text
//!   layout ─┬─ with a class ──► a block of the class, from the pools
//!           ├─ too large ─────► the C library
//!           └─ empty ─────────► an aligned pointer to nothing
//! ```
//!
//! The layout tells where memory came from when it is freed, so its address need not be looked up.

use std::{alloc::Layout, num::NonZero, ptr::NonNull};

use obmalloc::{BlockPtr, SizeClass};

use crate::{
    classes::{Pools, class, grown, serves, small_class},
    large::{self, Init, after_trim},
    large_list::LargeList,
};

/// An allocator that serves small layouts from pools and all others from the C library.
///
/// # Safety
///
/// - The blocks of `alloc_block` must meet the requirements of [`obmalloc::Blocks`].
/// - The blocks must be naturally aligned: a 64-byte block to 64 bytes, a 48-byte block to 16.
pub(crate) unsafe trait Layouts {
    /// Returns the list of large memory that this allocator frees when dropped, if it has one.
    #[inline]
    fn large_list(&self) -> Option<&LargeList> {
        None
    }

    /// Hints to the compiler what an allocation needs, before the size of the layout is tested.
    #[inline]
    fn prepare(&self) {}

    /// Allocates an uninitialised block of `class`, or returns `None` if no arena is available.
    fn alloc_block(&self, class: SizeClass<Pools>) -> Option<BlockPtr>;

    /// Allocates a block of `class` whose contents are zero.
    fn alloc_zeroed_block(&self, class: SizeClass<Pools>) -> Option<BlockPtr>;

    /// Frees `block`.
    ///
    /// # Safety
    ///
    /// - `block` must have been returned by [`alloc_block`](Self::alloc_block).
    unsafe fn free_block(&self, block: BlockPtr);

    /// Frees `block`, which has a small class.
    ///
    /// # Safety
    ///
    /// - `block` must have been returned by [`alloc_block`](Self::alloc_block).
    /// - The class of `block` must be [small](SizeClass::is_small).
    unsafe fn free_small_block(&self, block: BlockPtr);

    /// Unmaps the empty arenas that the pools retain.
    fn trim(&self);

    /// Ends the process if it can tell that this allocator did not return `ptr` for `layout`.
    ///
    /// # Safety
    ///
    /// - If `ptr` lies in an arena of the process's heaps, it must point to a block in use.
    #[inline]
    unsafe fn check(_action: &str, _ptr: NonNull<u8>, _layout: Layout) {}

    /// Allocates memory for `layout` with the contents that `init` asks for.
    #[inline]
    fn allocate(&self, layout: Layout, init: Init) -> Option<NonNull<u8>> {
        self.prepare();
        let Some(class) = small_class(layout) else { return self.allocate_above(layout, init) };
        let start = self.alloc_block(class)?.into_start();
        if init == Init::Zeroed {
            // SAFETY: the block is new and has at least that many bytes.
            unsafe { start.write_bytes(0, layout.size()) };
        }
        Some(start)
    }

    /// Allocates memory that is not small. Not inlined, to keep small requests short.
    #[inline(never)]
    fn allocate_above(&self, layout: Layout, init: Init) -> Option<NonNull<u8>> {
        let Some(class) = class(layout) else { return self.alloc_large(layout, init) };
        let start = match init {
            Init::Uninit => self.alloc_block(class),
            Init::Zeroed => self.alloc_zeroed_block(class),
        };
        Some(start?.into_start())
    }

    /// Frees the memory at `ptr`.
    ///
    /// # Safety
    ///
    /// - `ptr` must be live memory that this allocator returned for `layout`.
    /// - The memory must not be used again.
    #[inline]
    unsafe fn deallocate(&self, ptr: NonNull<u8>, layout: Layout) {
        // SAFETY: `ptr` is live memory of this allocator (contract of `deallocate`).
        unsafe { Self::check("free", ptr, layout) };
        if small_class(layout).is_some() {
            // SAFETY: the layout has a small class, so the memory is a small block (contract).
            unsafe { self.free_small_block(BlockPtr::from_start(ptr)) };
        } else {
            // SAFETY: the memory is live, and is not small.
            unsafe { self.deallocate_above(ptr, layout) };
        }
    }

    /// Frees memory that is not small. Not inlined, to keep small requests short.
    ///
    /// # Safety
    ///
    /// As for [`deallocate`](Self::deallocate).
    #[inline(never)]
    unsafe fn deallocate_above(&self, ptr: NonNull<u8>, layout: Layout) {
        if class(layout).is_some() {
            // SAFETY: the layout has a class, so the memory is a block of the pools (contract).
            unsafe { self.free_block(BlockPtr::from_start(ptr)) };
        } else if layout.size() > 0 {
            match self.large_list() {
                // SAFETY: without a class, the memory came from the list (contract).
                Some(list) => unsafe { list.free(ptr, layout) },
                // SAFETY: without a list, the memory came from the C library (contract).
                None => unsafe { large::free(ptr) },
            }
        }
    }

    /// Resizes memory from `old` to `new`, and keeps the contents up to the smaller of both sizes.
    ///
    /// The memory stays in its block if [`serves`] allows it. On `None`, the memory is unchanged.
    ///
    /// # Safety
    ///
    /// - `ptr` must point to live memory that this allocator returned for the layout `old`.
    /// - If this method returns a different pointer, the caller must not use `ptr` afterwards.
    #[inline]
    unsafe fn reallocate(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Option<NonNull<u8>> {
        // SAFETY: `ptr` is live memory of this allocator (contract of `reallocate`).
        unsafe { Self::check("resize", ptr, old) };
        match (small_class(old), small_class(new)) {
            // SAFETY: `old` has a small class, so the memory is a small block in use.
            (Some(_), Some(after)) if serves(unsafe { SizeClass::at_small(ptr) }, new, after) => {
                Some(ptr)
            }
            // SAFETY: the contract is the same.
            _ => unsafe { self.resize_or_move(ptr, old, new) },
        }
    }

    /// Resizes or moves memory. Not inlined, so that memory which stays needs no stack frame.
    ///
    /// # Safety
    ///
    /// As for [`reallocate`](Self::reallocate).
    #[inline(never)]
    unsafe fn resize_or_move(
        &self,
        ptr: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Option<NonNull<u8>> {
        match (class(old), class(new)) {
            // SAFETY: `old` has a class, so the memory is a block in use.
            (Some(_), Some(after)) if serves(unsafe { SizeClass::at(ptr) }, new, after) => {
                Some(ptr)
            }
            (None, None) if is_resizable(old, new) => {
                // SAFETY: `old` has no class and is not empty, and `new` has the same alignment.
                unsafe { self.resize_large(ptr, old, new.size()) }
            }
            // SAFETY: the contract is the same.
            _ => unsafe { self.move_to(ptr, old, new) },
        }
    }

    /// Moves memory to a new allocation for `new`.
    ///
    /// # Safety
    ///
    /// - The requirements of [`reallocate`](Self::reallocate) must be met.
    unsafe fn move_to(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Option<NonNull<u8>> {
        let roomy = grown(old, new).and_then(|class| self.alloc_block(class));
        let to = roomy.map(BlockPtr::into_start).or_else(|| self.allocate(new, Init::Uninit))?;
        // SAFETY: both allocations are live, have that many bytes and do not overlap.
        unsafe { to.copy_from_nonoverlapping(ptr, old.size().min(new.size())) };
        // SAFETY: `ptr` is live for `old`, and the caller uses only `to` from now on (contract).
        unsafe { self.deallocate(ptr, old) };
        Some(to)
    }

    /// Allocates memory without a size class. Not inlined, to keep small requests fast.
    #[inline(never)]
    fn alloc_large(&self, layout: Layout, init: Init) -> Option<NonNull<u8>> {
        if layout.size() == 0 {
            return Some(nothing(layout));
        }
        let request = || match self.large_list() {
            Some(list) => list.alloc(layout, init),
            None => large::alloc(layout, init),
        };
        after_trim(request, || self.trim())
    }

    /// Resizes memory to `size` bytes. Neither the old nor the new layout may have a size class.
    ///
    /// # Safety
    ///
    /// - `layout` must not be empty.
    /// - `ptr` must point to live memory that this allocator returned for `layout`.
    /// - `size` and `layout.align()` must form a valid layout.
    #[inline(never)]
    unsafe fn resize_large(
        &self,
        ptr: NonNull<u8>,
        layout: Layout,
        size: usize,
    ) -> Option<NonNull<u8>> {
        // A request that fails leaves the memory unchanged, so it may be repeated.
        let request = || match self.large_list() {
            // SAFETY: the layout has no class, so the memory came from the list (contract).
            Some(list) => unsafe { list.resize(ptr, layout, size) },
            // SAFETY: there is no list, so the memory came from the C library (contract).
            None => unsafe { large::resize(ptr, layout, size) },
        };
        after_trim(request, || self.trim())
    }
}

/// Returns true if the C library can resize memory from `old` to `new`, which have no size class.
#[inline]
fn is_resizable(old: Layout, new: Layout) -> bool {
    old.align() == new.align() && old.size() > 0 && new.size() > 0
}

/// Returns a pointer to zero bytes that is aligned for `layout`.
fn nothing(layout: Layout) -> NonNull<u8> {
    NonZero::new(layout.align()).map_or(NonNull::dangling(), NonNull::without_provenance)
}
