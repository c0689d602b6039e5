//! Requests of any layout, over pools and the layer below.
//!
//! ```text
//!   layout ─► class ─┬─ of the pools ─► a block of the class
//!                    └─ none ─────────► the layer below
//! ```
//!
//! Freeing and resizing are told the layout, so they take the same way and never ask whose an
//! address is.

use std::{alloc::Layout, ptr::NonNull};

use obmalloc::{BlockPtr, SizeClass};

use crate::layout::{Pools, class, grown, serves};

/// Pools, and a layer below for what they are too small for.
///
/// # Safety
///
/// An implementer promises of its blocks what [`obmalloc::Blocks`] promises, and of large ones
/// that they have the layout's size and alignment, overlap nothing else in use, and are the
/// caller's until freed.
pub(crate) unsafe trait AnyLayout {
    /// A block of `class`, uninitialised; `None` when no arena can be had.
    fn block(&self, class: SizeClass<Pools>) -> Option<BlockPtr>;

    /// Takes `block` back.
    ///
    /// # Safety
    ///
    /// The block came from [`block`](Self::block).
    unsafe fn free_block(&self, block: BlockPtr);

    /// Large memory, uninitialised.
    fn large(&self, layout: Layout) -> Option<NonNull<u8>>;

    /// Large memory, all zero.
    fn large_zeroed(&self, layout: Layout) -> Option<NonNull<u8>>;

    /// Makes large memory hold `size` bytes, moving it if it must. On `None` it stands untouched.
    ///
    /// # Safety
    ///
    /// `ptr` is live, and came from one of the two above, or from here, for `layout`; `size` and
    /// its alignment make a layout.
    unsafe fn resize_large(
        &self,
        ptr: NonNull<u8>,
        layout: Layout,
        size: usize,
    ) -> Option<NonNull<u8>>;

    /// Takes large memory back.
    ///
    /// # Safety
    ///
    /// `ptr` is live, came from one of the three above for `layout`, and is not used again.
    unsafe fn free_large(&self, ptr: NonNull<u8>, layout: Layout);

    /// Memory for `layout`, uninitialised.
    #[inline]
    fn allocate(&self, layout: Layout) -> Option<NonNull<u8>> {
        match class(layout) {
            Some(class) => self.block(class).map(BlockPtr::into_start),
            None => self.large(layout),
        }
    }

    /// Memory for `layout`, all zero.
    #[inline]
    fn allocate_zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
        let Some(class) = class(layout) else { return self.large_zeroed(layout) };
        let start = self.block(class)?.into_start();
        // SAFETY: the memory has that many bytes, and is ours alone.
        unsafe { start.write_bytes(0, layout.size()) };
        Some(start)
    }

    /// Takes memory back.
    ///
    /// # Safety
    ///
    /// `ptr` is live, came from here for `layout`, and is not used again.
    #[inline]
    unsafe fn deallocate(&self, ptr: NonNull<u8>, layout: Layout) {
        if class(layout).is_some() {
            // SAFETY: the pools served the layout; the caller gives the block up.
            unsafe { self.free_block(BlockPtr::from_start(ptr)) };
        } else {
            // SAFETY: the caller's promise.
            unsafe { self.free_large(ptr, layout) };
        }
    }

    /// Makes memory for `old` memory for `new`, with its contents up to the smaller of both
    /// sizes. A block that serves `new` as well stays. On `None` all stands untouched.
    ///
    /// # Safety
    ///
    /// `ptr` is live, and came from here for `old`.
    #[inline]
    unsafe fn reallocate(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Option<NonNull<u8>> {
        match (class(old), class(new)) {
            // SAFETY: a block for `old` is in use.
            (Some(_), Some(after)) if serves(unsafe { SizeClass::at(ptr) }, new, after) => {
                Some(ptr)
            }
            (None, None) if old.align() == new.align() => {
                // SAFETY: the caller's promise; `new` is a layout of the same alignment.
                unsafe { self.resize_large(ptr, old, new.size()) }
            }
            // SAFETY: the caller's promise.
            _ => unsafe { self.move_to(ptr, old, new) },
        }
    }

    /// Takes new memory, copies, and takes the old memory back.
    ///
    /// # Safety
    ///
    /// As for [`reallocate`](Self::reallocate).
    #[inline(never)]
    unsafe fn move_to(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Option<NonNull<u8>> {
        let roomy = grown(old, new).and_then(|class| self.block(class));
        let to = roomy.map(BlockPtr::into_start).or_else(|| self.allocate(new))?;
        // SAFETY: both are live, so they do not overlap, and have that many bytes.
        unsafe { to.copy_from_nonoverlapping(ptr, old.size().min(new.size())) };
        // SAFETY: the caller's promise; it is replaced, so it is ours alone.
        unsafe { self.deallocate(ptr, old) };
        Some(to)
    }
}
