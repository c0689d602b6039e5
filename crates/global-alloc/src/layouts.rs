//! Requests of any layout. They get memory from the pools or from the C library.
//!
//! ```text
//!   layout ─┬─ with a class ──► a block of the class, from the pools
//!           ├─ too large ─────► the C library
//!           └─ empty ─────────► an aligned pointer to nothing
//! ```
//!
//! The caller passes the same layout again when it frees or resizes memory. The layout tells where
//! the memory came from, so the address need not be looked up.

use std::{alloc::Layout, num::NonZero, ptr::NonNull};

use obmalloc::{BlockPtr, SizeClass};

use crate::{
    classes::{Pools, class, grown, serves},
    large::{self, Init, after_trim},
    large_list::LargeList,
};

/// An allocator that serves small layouts from a heap of pools and all other layouts from the C
/// library.
///
/// # Safety
///
/// - The blocks of [`alloc_block`](Self::alloc_block) must meet the requirements that
///   [`obmalloc::Blocks`] makes.
pub(crate) unsafe trait Layouts {
    /// Returns the list that contains the allocator's memory from the C library, or `None` if there
    /// is no such list. An allocator needs the list only if it frees this memory when it is
    /// dropped.
    #[inline]
    fn large_list(&self) -> Option<&LargeList> {
        None
    }

    /// Hints to the compiler what an allocation needs, before the size of the layout is tested.
    #[inline]
    fn prepare(&self) {}

    /// Allocates an uninitialised block of `class`. Returns `None` if no arena is available.
    fn alloc_block(&self, class: SizeClass<Pools>) -> Option<BlockPtr>;

    /// Frees `block`, a block of the pools.
    ///
    /// # Safety
    ///
    /// - `block` must have been returned by [`alloc_block`](Self::alloc_block).
    unsafe fn free_block(&self, block: BlockPtr);

    /// Unmaps the empty arenas that the pools retain.
    fn trim(&self);

    /// Ends the process if the function can tell that `ptr` is not memory which this allocator
    /// returned for `layout`. `action` is a verb for what the program is doing with the memory.
    ///
    /// # Safety
    ///
    /// - If `ptr` lies in an arena of the process's heaps, it must point to a block in use.
    #[inline]
    unsafe fn check(_action: &str, _ptr: NonNull<u8>, _layout: Layout) {}

    /// Allocates memory for `layout`, with the contents that `init` asks for. Returns `None` if no
    /// memory is available.
    #[inline]
    fn allocate(&self, layout: Layout, init: Init) -> Option<NonNull<u8>> {
        self.prepare();
        let Some(class) = class(layout) else { return self.alloc_large(layout, init) };
        let start = self.alloc_block(class)?.into_start();
        if init == Init::Zeroed {
            // SAFETY: the block is new and has at least that many bytes.
            unsafe { start.write_bytes(0, layout.size()) };
        }
        Some(start)
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

    /// Resizes the memory at `ptr` from the layout `old` to the layout `new`. The contents stay the
    /// same up to the smaller of both sizes. The memory stays in its block if that block also suits
    /// `new`; see [`serves`]. If the function returns `None`, the memory at `ptr` has not changed.
    ///
    /// # Safety
    ///
    /// - `ptr` must be live memory that this allocator returned for `old`.
    /// - `ptr` must not be used again, unless the function returns `None` or the same pointer.
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

    /// Allocates memory for `new`, copies the contents into it, and frees the memory for `old`.
    ///
    /// # Safety
    ///
    /// - The requirements of [`reallocate`](Self::reallocate) must be met.
    unsafe fn move_to(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Option<NonNull<u8>> {
        let roomy = grown(old, new).and_then(|class| self.alloc_block(class));
        let to = roomy.map(BlockPtr::into_start).or_else(|| self.allocate(new, Init::Uninit))?;
        // SAFETY: both allocations are live and have at least that many bytes. New memory overlaps
        // no other memory in use.
        unsafe { to.copy_from_nonoverlapping(ptr, old.size().min(new.size())) };
        // SAFETY: `ptr` is live memory for `old`, and the caller uses `to` from now on (contract).
        unsafe { self.deallocate(ptr, old) };
        Some(to)
    }

    /// Allocates memory for a layout that has no size class. It is never inlined, so that requests
    /// with a size class need no stack frame.
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

    /// Resizes the memory at `ptr` to `size` bytes with the same alignment. Neither the old nor the
    /// new layout has a size class.
    ///
    /// # Safety
    ///
    /// - `ptr` must be live memory that this allocator returned for `layout`, which must not be
    ///   empty.
    /// - `size` and the alignment of `layout` must be a valid layout.
    #[inline(never)]
    unsafe fn resize_large(
        &self,
        ptr: NonNull<u8>,
        layout: Layout,
        size: usize,
    ) -> Option<NonNull<u8>> {
        // A request that fails does not change the memory, so we may repeat it.
        let request = || match self.large_list() {
            // SAFETY: the layout has no class, so the memory came from the list (contract).
            Some(list) => unsafe { list.resize(ptr, layout, size) },
            // SAFETY: there is no list, so the memory came from the C library (contract).
            None => unsafe { large::resize(ptr, layout, size) },
        };
        after_trim(request, || self.trim())
    }
}

/// Returns true if memory for `old` can be resized to `new` by the C library. Neither layout may
/// have a size class.
#[inline]
fn is_resizable(old: Layout, new: Layout) -> bool {
    old.align() == new.align() && old.size() > 0 && new.size() > 0
}

/// Returns a pointer to zero bytes that is aligned for `layout`.
fn nothing(layout: Layout) -> NonNull<u8> {
    NonZero::new(layout.align()).map_or(NonNull::dangling(), NonNull::without_provenance)
}
