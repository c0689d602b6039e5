//! Requests of any layout, served by pools and the C library.
//!
//! ```text
//!   layout ─┬─ with a class ──► a block of the class, from the pools
//!           ├─ too large ─────► the C library
//!           └─ empty ─────────► an aligned pointer to nothing
//! ```
//!
//! The caller passes the layout again to free or resize memory, so the address need not be looked
//! up.

use std::{alloc::Layout, num::NonZero, ptr::NonNull};

use obmalloc::{BlockPtr, SizeClass};

use crate::{
    classes::{Pools, class, grown, serves},
    large::{self, Init, after_trim},
    large_list::LargeList,
};

/// An allocator with pools for small layouts. Memory for all others comes from the C library.
///
/// # Safety
///
/// An implementer promises about its blocks what [`obmalloc::Blocks`] promises.
pub(crate) unsafe trait Layouts {
    /// Returns the list of the memory from the C library, if the allocator frees that memory when
    /// it is dropped.
    #[inline]
    fn large_list(&self) -> Option<&LargeList> {
        None
    }

    /// Allocates a block of `class`, uninitialised. Returns `None` if no arena is available.
    fn alloc_block(&self, class: SizeClass<Pools>) -> Option<BlockPtr>;

    /// Frees `block`.
    ///
    /// # Safety
    ///
    /// - `block` must have been returned by [`alloc_block`](Self::alloc_block).
    unsafe fn free_block(&self, block: BlockPtr);

    /// Unmaps the memory that the pools retain.
    fn trim(&self);

    /// Ends the process if it can tell that `ptr` is not memory of this allocator for `layout`.
    /// `action` says what the program does with the memory.
    ///
    /// # Safety
    ///
    /// - If `ptr` lies in an arena of the process's heaps, it must be a block in use.
    #[inline]
    unsafe fn check(_action: &str, _ptr: NonNull<u8>, _layout: Layout) {}

    /// Allocates memory for `layout`.
    #[inline]
    fn allocate(&self, layout: Layout, init: Init) -> Option<NonNull<u8>> {
        let Some(class) = class(layout) else { return self.alloc_large(layout, init) };
        let start = self.alloc_block(class)?.into_start();
        if init == Init::Zeroed {
            // SAFETY: the block is new and has at least that many bytes.
            unsafe { start.write_bytes(0, layout.size()) };
        }
        Some(start)
    }

    /// Frees memory.
    ///
    /// # Safety
    ///
    /// - `ptr` must be live memory of this allocator for `layout`.
    /// - It must not be used again.
    #[inline]
    unsafe fn deallocate(&self, ptr: NonNull<u8>, layout: Layout) {
        // SAFETY: `ptr` is live memory of this allocator (contract of `deallocate`).
        unsafe { Self::check("free", ptr, layout) };
        if class(layout).is_some() {
            // SAFETY: the layout has a class, so the memory is a block of the pools. It is not used
            // again (contract of `deallocate`).
            unsafe { self.free_block(BlockPtr::from_start(ptr)) };
        } else if layout.size() > 0 {
            match self.large_list() {
                // SAFETY: the layout has no class, so the memory came from the list. It is not used
                // again (contract of `deallocate`).
                Some(list) => unsafe { list.free(ptr, layout) },
                // SAFETY: there is no list, so the memory came from the C library. It is not used
                // again (contract of `deallocate`).
                None => unsafe { large::free(ptr) },
            }
        }
    }

    /// Makes memory for `new` out of memory for `old`. Keeps the contents up to the smaller of both
    /// sizes, and keeps the block if its class also serves `new`. On `None` the memory has not
    /// changed.
    ///
    /// # Safety
    ///
    /// - `ptr` must be live memory of this allocator for `old`.
    /// - It must not be used again unless the function returns `None` or the same pointer.
    #[inline]
    unsafe fn reallocate(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Option<NonNull<u8>> {
        // SAFETY: `ptr` is live memory of this allocator (contract of `reallocate`).
        unsafe { Self::check("resize", ptr, old) };
        match (class(old), class(new)) {
            // SAFETY: `old` has a class, so the memory is a block in use.
            (Some(_), Some(after)) if serves(unsafe { SizeClass::at(ptr) }, new, after) => {
                Some(ptr)
            }
            // SAFETY: the contract is the same.
            _ => unsafe { self.resize_or_move(ptr, old, new) },
        }
    }

    /// Resizes large memory, or moves memory that cannot stay in its block. It is not inlined, so that
    /// a block which stays in place needs no stack frame.
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
        if class(old).is_none() && class(new).is_none() && is_resizable(old, new) {
            // SAFETY: `old` has no class and is not empty, and `new` has the same alignment.
            unsafe { self.resize_large(ptr, old, new.size()) }
        } else {
            // SAFETY: the contract is the same.
            unsafe { self.move_to(ptr, old, new) }
        }
    }

    /// Allocates memory for `new`, copies the contents and frees the old memory.
    ///
    /// # Safety
    ///
    /// As for [`reallocate`](Self::reallocate).
    unsafe fn move_to(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Option<NonNull<u8>> {
        let roomy = grown(old, new).and_then(|class| self.alloc_block(class));
        let to = roomy.map(BlockPtr::into_start).or_else(|| self.allocate(new, Init::Uninit))?;
        // SAFETY: both are live and have at least that many bytes. New memory overlaps no other.
        unsafe { to.copy_from_nonoverlapping(ptr, old.size().min(new.size())) };
        // SAFETY: `ptr` is live memory for `old`, and the caller uses `to` from now on (contract).
        unsafe { self.deallocate(ptr, old) };
        Some(to)
    }

    /// Allocates memory for a layout without a class. It is not inlined, so that requests for small
    /// memory need no stack frame.
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

    /// Resizes memory to a layout with the same alignment. Neither layout has a class.
    ///
    /// # Safety
    ///
    /// - `ptr` must be live memory of this allocator for `layout`, which must not be empty.
    /// - `size` and the alignment of `layout` must be a valid layout.
    #[inline(never)]
    unsafe fn resize_large(
        &self,
        ptr: NonNull<u8>,
        layout: Layout,
        size: usize,
    ) -> Option<NonNull<u8>> {
        // A request that fails leaves the memory as it was, so it can be repeated.
        let request = || match self.large_list() {
            // SAFETY: the layout has no class, so the memory came from the list (contract).
            Some(list) => unsafe { list.resize(ptr, layout, size) },
            // SAFETY: there is no list, so the memory came from the C library (contract).
            None => unsafe { large::resize(ptr, layout, size) },
        };
        after_trim(request, || self.trim())
    }
}

/// Returns true if memory for `old` that has no class can be resized to memory for `new`.
#[inline]
fn is_resizable(old: Layout, new: Layout) -> bool {
    old.align() == new.align() && old.size() > 0 && new.size() > 0
}

/// Returns an aligned pointer to no bytes.
fn nothing(layout: Layout) -> NonNull<u8> {
    NonZero::new(layout.align()).map_or(NonNull::dangling(), NonNull::without_provenance)
}
