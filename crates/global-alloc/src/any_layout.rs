//! Requests of any layout, over pools and the layer below.
//!
//! ```text
//!   layout ─► Place ─┬─ Block ─► a block of the class, from its shift on
//!                    └─ Large ─► the layer below
//! ```
//!
//! Freeing and resizing are told the layout, so they take the same way and never ask whose an
//! address is.

use std::{alloc::Layout, ptr::NonNull};

use obmalloc::{BlockPtr, SizeClass};

use crate::layout::{Place, Pools, plain_class};

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
        match plain_class(layout) {
            Some(class) => self.block(class).map(BlockPtr::into_start),
            None => self.allocate_otherwise(layout),
        }
    }

    /// Memory for a layout that is large, or aligned to more than every block is.
    #[inline(never)]
    fn allocate_otherwise(&self, layout: Layout) -> Option<NonNull<u8>> {
        match Place::of(layout) {
            Place::Block { class, shift } => self.block(class).map(|block| skip(block, shift)),
            Place::Large => self.large(layout),
        }
    }

    /// Memory for `layout`, all zero.
    #[inline]
    fn allocate_zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
        if Place::of(layout) == Place::Large {
            return self.large_zeroed(layout);
        }
        let start = self.allocate(layout)?;
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
        if plain_class(layout).is_some() {
            // SAFETY: a block for a plain layout is used from its start; the caller gives it up.
            unsafe { self.free_block(BlockPtr::from_start(ptr)) };
        } else {
            // SAFETY: the caller's promise.
            unsafe { self.deallocate_otherwise(ptr, layout) };
        }
    }

    /// Takes memory back whose layout is large, or aligned to more than every block is.
    ///
    /// # Safety
    ///
    /// As for [`deallocate`](Self::deallocate).
    #[inline(never)]
    unsafe fn deallocate_otherwise(&self, ptr: NonNull<u8>, layout: Layout) {
        match Place::of(layout) {
            Place::Block { shift, .. } => {
                // SAFETY: what came from here for such a layout is that far into its block.
                let block = unsafe { BlockPtr::from_start(ptr.sub(shift)) };
                // SAFETY: the caller gives the block up.
                unsafe { self.free_block(block) };
            }
            // SAFETY: the caller's promise.
            Place::Large => unsafe { self.free_large(ptr, layout) },
        }
    }

    /// Makes memory for `old` memory for `new`, with its contents up to the smaller of both
    /// sizes. It stays where it is if its block serves both. On `None` it stands untouched.
    ///
    /// # Safety
    ///
    /// `ptr` is live, and came from here for `old`.
    unsafe fn reallocate(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Option<NonNull<u8>> {
        match (Place::of(old), Place::of(new)) {
            (Place::Large, Place::Large) if old.align() == new.align() => {
                // SAFETY: the caller's promise; `new` is a layout of the same alignment.
                unsafe { self.resize_large(ptr, old, new.size()) }
            }
            (before, after) if before == after && before != Place::Large => Some(ptr),
            // SAFETY: the caller's promise.
            _ => unsafe { self.move_to(ptr, old, new) },
        }
    }

    /// Takes new memory, copies, and takes the old memory back.
    ///
    /// # Safety
    ///
    /// As for [`reallocate`](Self::reallocate).
    unsafe fn move_to(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Option<NonNull<u8>> {
        let to = self.allocate(new)?;
        // SAFETY: both are live, so they do not overlap, and have that many bytes.
        unsafe { to.copy_from_nonoverlapping(ptr, old.size().min(new.size())) };
        // SAFETY: the caller's promise; it is replaced, so it is ours alone.
        unsafe { self.deallocate(ptr, old) };
        Some(to)
    }
}

#[inline]
fn skip(block: BlockPtr, shift: usize) -> NonNull<u8> {
    // SAFETY: a block of a class that was chosen for a shift is longer than the shift.
    unsafe { block.into_start().add(shift) }
}
