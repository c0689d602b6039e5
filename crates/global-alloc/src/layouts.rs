//! Requests of any layout. They are served from pools or from mappings.
//!
//! ```text
//!   layout ─┬─ with a class ──► a block of the class, from the pools
//!           ├─ too large ─────► a mapping of its own
//!           └─ empty ─────────► an aligned pointer to nothing
//! ```
//!
//! When memory is freed, its layout tells us where it came from, so we need not look up its
//! address.

use std::{alloc::Layout, num::NonZero, ptr::NonNull};

use obmalloc::{BlockPtr, LargeBlock, NewLarge, SizeClass};

use crate::classes::{
    Place, Pools, class_size, grown, is_large, is_linked, is_medium, is_span, is_unlinked,
    may_lie_in, place, rounded, serves, small_class, small_with_room,
};

/// The required contents of new memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Init {
    Uninit,
    Zeroed,
}

/// An allocator that serves all layouts from pools and mappings.
///
/// # Safety
///
/// - Blocks from `alloc_block` and `alloc_zeroed_block` must meet the requirements of
///   [`obmalloc::Blocks`].
/// - A block from `alloc_block` or `alloc_zeroed_block` must be aligned to the largest power of two
///   that divides its size, but at most to the pool size. For example, a 48-byte block must be
///   aligned to 16 bytes.
/// - Blocks from `alloc_aligned_block` and `alloc_large` must have the requested alignment.
/// - No two live blocks may overlap.
pub(crate) unsafe trait Layouts {
    /// Tells the compiler what an allocation needs, before the size of the layout is tested.
    #[inline]
    fn prepare(&self) {}

    /// Allocates an uninitialised block of `class`, or returns `None` if no arena is available.
    fn alloc_block(&self, class: SizeClass<Pools>) -> Option<BlockPtr>;

    /// Allocates an uninitialised block for `size` bytes. The class for this size must be linked.
    fn alloc_linked_block(&self, size: usize) -> Option<BlockPtr>;

    /// Allocates an uninitialised block for `size` bytes. There must be a class for this size, and
    /// it must not be linked.
    fn alloc_unlinked_block(&self, size: usize) -> Option<BlockPtr>;

    /// Allocates a block of `class` whose first `bytes` bytes are zero.
    fn alloc_zeroed_block(&self, class: SizeClass<Pools>, bytes: usize) -> Option<BlockPtr>;

    /// Allocates a block of `class` at a multiple of `align`. `class` must not be linked.
    fn alloc_aligned_block(&self, class: SizeClass<Pools>, align: usize) -> Option<BlockPtr>;

    /// Frees `block`.
    ///
    /// # Safety
    ///
    /// - `block` must be a live block of this allocator.
    unsafe fn free_block(&self, block: BlockPtr);

    /// Frees `block`, whose size class must be linked.
    ///
    /// # Safety
    ///
    /// - `block` must be a live block of this allocator.
    /// - The class of `block` must be [linked](SizeClass::is_linked).
    unsafe fn free_linked_block(&self, block: BlockPtr);

    /// Frees `block`, whose size class must be a class of spans. An allocator can free a span
    /// faster than other blocks.
    ///
    /// # Safety
    ///
    /// - `block` must be a live block of this allocator.
    /// - The class of `block` must be a class of [spans](SizeClass::is_span).
    unsafe fn free_span(&self, block: BlockPtr) {
        // SAFETY: the contract is the same.
        unsafe { self.free_block(block) };
    }

    /// Allocates a block with its own mapping.
    fn alloc_large(&self, size: usize, align: usize) -> Option<NewLarge>;

    /// Allocates a block with its own mapping, and makes its first `size` bytes zero.
    fn alloc_zeroed_large(&self, size: usize, align: usize) -> Option<LargeBlock> {
        let NewLarge { block, is_zeroed } = self.alloc_large(size, align)?;
        if !is_zeroed {
            // SAFETY: the block is new and has at least that many bytes.
            unsafe { block.start().write_bytes(0, size) };
        }
        Some(block)
    }

    /// Frees a block with its own mapping.
    ///
    /// # Safety
    ///
    /// - `block` must have been returned by [`alloc_large`](Self::alloc_large) or
    ///   [`resize_large`](Self::resize_large), and must not be used again.
    unsafe fn free_large(&self, block: LargeBlock);

    /// Resizes a block that has its own mapping.
    ///
    /// The function tries to make the block `room` bytes long, so that it can grow later without
    /// moving. If there is not enough memory for that, the block gets `size` bytes. If this also
    /// fails, the function returns `None`, and the block is unchanged.
    ///
    /// # Safety
    ///
    /// - `block` must have been returned by [`alloc_large`](Self::alloc_large) or by this method.
    /// - Only the returned block may be used afterwards.
    unsafe fn resize_large(
        &self,
        block: LargeBlock,
        size: usize,
        room: usize,
    ) -> Option<LargeBlock>;

    /// Ends the process if this allocator provably did not return `ptr` for `layout`.
    ///
    /// # Safety
    ///
    /// - If `ptr` lies in an arena of the process's heaps, it must point to a block in use.
    #[inline]
    unsafe fn check(_action: &str, _ptr: NonNull<u8>, _layout: Layout) {}

    /// Allocates memory for `layout`, with contents as `init` requires.
    #[inline]
    fn allocate(&self, layout: Layout, init: Init) -> Option<NonNull<u8>> {
        self.prepare();
        let is_direct = match init {
            Init::Uninit => is_linked(layout),
            // Above the small threshold, the heap may know that new memory is zero.
            Init::Zeroed => small_class(layout).is_some(),
        };
        if !is_direct {
            return match init {
                Init::Uninit => self.allocate_above(class_size(layout), layout),
                Init::Zeroed => self.allocate_at_its_place(layout, init),
            };
        }
        let start = self.alloc_linked_block(rounded(layout))?.into_start();
        if init == Init::Zeroed {
            // SAFETY: the block is new and has at least that many bytes.
            unsafe { start.write_bytes(0, layout.size()) };
        }
        Some(start)
    }

    /// Allocates uninitialised memory above `linked_threshold`. It is not inlined, which keeps the
    /// code of small requests short.
    ///
    /// `size` must be the [`class_size`] of `layout`. Callers pass it because they often know it as
    /// a constant.
    #[inline(never)]
    fn allocate_above(&self, size: usize, layout: Layout) -> Option<NonNull<u8>> {
        if is_unlinked(size) {
            self.alloc_unlinked_block(size).map(BlockPtr::into_start)
        } else if is_large(size) {
            self.allocate_large(layout)
        } else {
            self.allocate_at_its_place(layout, Init::Uninit)
        }
    }

    /// Allocates uninitialised memory with its own mapping. It is not inlined, so that requests for
    /// blocks need no stack frame.
    #[inline(never)]
    fn allocate_large(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.alloc_large(layout.size(), layout.align()).map(|new| new.block.start())
    }

    /// Allocates memory of any kind. It is not inlined, so that requests for blocks need no stack
    /// frame.
    #[inline(never)]
    fn allocate_at_its_place(&self, layout: Layout, init: Init) -> Option<NonNull<u8>> {
        let block = match place(layout) {
            Place::Nowhere => return Some(nothing(layout)),
            // Uninitialised blocks come from `allocate` and `allocate_above`.
            Place::Block(class) => {
                return self.alloc_zeroed_block(class, layout.size()).map(BlockPtr::into_start);
            }
            Place::AlignedBlock(class) => self.alloc_aligned_block(class, layout.align())?,
            Place::Mapping => {
                let block = match init {
                    Init::Uninit => self.alloc_large(layout.size(), layout.align())?.block,
                    Init::Zeroed => self.alloc_zeroed_large(layout.size(), layout.align())?,
                };
                return Some(block.start());
            }
        };
        let start = block.into_start();
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
        if is_linked(layout) {
            // SAFETY: the layout has a linked class, so the memory is a linked block (contract).
            unsafe { self.free_linked_block(BlockPtr::from_start(ptr)) };
        } else {
            // SAFETY: the memory is live, and its class is not linked.
            unsafe { self.deallocate_above(ptr, class_size(layout), layout) };
        }
    }

    /// Frees memory above `linked_threshold`. It is not inlined, which keeps the code of small
    /// requests short.
    ///
    /// # Safety
    ///
    /// - The requirements of [`deallocate`](Self::deallocate) must be met.
    /// - `size` must be the [`class_size`] of `layout`.
    #[inline(never)]
    unsafe fn deallocate_above(&self, ptr: NonNull<u8>, size: usize, layout: Layout) {
        if is_medium(size) {
            // SAFETY: the layout has a class, so the memory is a block of the pools (contract).
            unsafe { self.free_block(BlockPtr::from_start(ptr)) };
        } else if is_span(size) {
            // SAFETY: the layout has a class of spans, so the memory is a span (see `is_span`).
            unsafe { self.free_span(BlockPtr::from_start(ptr)) };
        } else if is_large(size) {
            // SAFETY: memory for such a layout has its own mapping (see `is_large`).
            unsafe { self.free_large(LargeBlock::from_start(ptr)) };
        } else {
            // SAFETY: the contract is the same.
            unsafe { self.deallocate_at_its_place(ptr, layout) };
        }
    }

    /// Frees memory of any kind. It is not inlined, so that freeing a block needs no stack frame.
    ///
    /// # Safety
    ///
    /// As for [`deallocate`](Self::deallocate).
    #[inline(never)]
    unsafe fn deallocate_at_its_place(&self, ptr: NonNull<u8>, layout: Layout) {
        match place(layout) {
            Place::Nowhere => {}
            Place::Block(_) | Place::AlignedBlock(_) => {
                // SAFETY: the layout has a class, so the memory is a block of the pools (contract).
                unsafe { self.free_block(BlockPtr::from_start(ptr)) };
            }
            Place::Mapping => {
                // SAFETY: memory for such a layout has its own mapping (contract).
                unsafe { self.free_large(LargeBlock::from_start(ptr)) };
            }
        }
    }

    /// Resizes memory from `old` to `new`, and keeps the contents up to the smaller of the two
    /// sizes.
    ///
    /// The memory stays in its block if [`serves`] allows it. If the result is `None`, the memory
    /// is unchanged.
    ///
    /// # Safety
    ///
    /// - `ptr` must point to live memory that this allocator returned for the layout `old`.
    /// - If the function returns a different pointer, the caller must not use `ptr` again.
    #[inline]
    unsafe fn reallocate(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Option<NonNull<u8>> {
        // SAFETY: `ptr` is live memory of this allocator (contract of `reallocate`).
        unsafe { Self::check("resize", ptr, old) };
        match (small_class(old), small_class(new)) {
            // SAFETY: `old` has a small class, so the memory lies in a linked block (see
            // `may_lie_in`).
            (Some(_), Some(after)) if serves(unsafe { SizeClass::at_linked(ptr) }, new, after) => {
                Some(ptr)
            }
            // SAFETY: the contract is the same, and both layouts have small classes.
            (Some(_), Some(_)) => unsafe { self.move_small(ptr, old, new) },
            // SAFETY: the contract is the same.
            _ => unsafe { self.resize_or_move(ptr, old, new) },
        }
    }

    /// Moves the contents of a small block to a new block.
    ///
    /// If no new block can be allocated, the memory stays in the old block if `new` fits there.
    ///
    /// This function is never inlined, so that its caller needs no stack frame when the memory
    /// stays in place.
    ///
    /// # Safety
    ///
    /// - The caller must meet the requirements of [`reallocate`](Self::reallocate).
    /// - Both layouts, `old` and `new`, must have a small size class (see [`small_class`]).
    #[inline(never)]
    unsafe fn move_small(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Option<NonNull<u8>> {
        let least = rounded(new);
        let roomy = small_with_room(old, new).unwrap_or(least);
        let block = self.alloc_linked_block(roomy).or_else(|| self.alloc_linked_block(least));
        let Some(block) = block else {
            // SAFETY: `ptr` is a live linked block (contract).
            let block = unsafe { SizeClass::at_linked(ptr) };
            return fits(ptr, block, new).then_some(ptr);
        };
        let to = block.into_start();
        // SAFETY: both blocks are live, have that many bytes and do not overlap.
        unsafe { to.copy_from_nonoverlapping(ptr, old.size().min(new.size())) };
        // SAFETY: `ptr` is a live linked block, and the caller uses only `to` from now on
        // (contract).
        unsafe { self.free_linked_block(BlockPtr::from_start(ptr)) };
        Some(to)
    }

    /// Resizes or moves memory of any kind. It is not inlined, which keeps the code of small
    /// requests short.
    ///
    /// If there is no memory for a new block, the contents can stay in the old block, for example
    /// when memory shrinks. This is possible if:
    /// - Both layouts, `old` and `new`, have a size class (see [`class`](crate::classes::class)).
    /// - The old block is large enough for `new`, and sufficiently aligned.
    /// - The function that frees memory of the layout `new` accepts a block of the class of the old
    ///   block (see [`may_lie_in`]).
    ///
    /// # Safety
    ///
    /// - The requirements of [`reallocate`](Self::reallocate) must be met.
    #[inline(never)]
    unsafe fn resize_or_move(
        &self,
        ptr: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Option<NonNull<u8>> {
        match (place(old), place(new)) {
            (Place::Block(_), Place::Block(after)) => {
                // SAFETY: `old` has a class, so the memory is a block in use.
                let block = unsafe { SizeClass::<Pools>::at(ptr) };
                let may_stay = block.is_some_and(|block| may_lie_in(block, after));
                if may_stay && serves(block, new, after) {
                    return Some(ptr);
                }
                // SAFETY: the contract is the same.
                let moved = unsafe { self.move_to(ptr, old, new) };
                return moved.or_else(|| (may_stay && fits(ptr, block, new)).then_some(ptr));
            }
            (Place::Mapping, Place::Mapping) if old.align() == new.align() => {
                // SAFETY: memory for such a layout has its own mapping (contract).
                let block = unsafe { LargeBlock::from_start(ptr) };
                // SAFETY: the memory is live. The caller uses only the result (contract).
                let resized = unsafe { self.resize_large(block, new.size(), with_room(old, new)) };
                if let Some(resized) = resized {
                    return Some(resized.start());
                }
            }
            _ => {}
        }
        // SAFETY: the contract is the same.
        unsafe { self.move_to(ptr, old, new) }
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
}

/// Returns true if the block at `ptr` is large enough and sufficiently aligned for `new`.
///
/// The parameter `block` is the size class of this block.
fn fits(ptr: NonNull<u8>, block: Option<SizeClass<Pools>>, new: Layout) -> bool {
    block.is_some_and(|block| new.size() <= block.block_size())
        && ptr.addr().get().is_multiple_of(new.align())
}

/// Returns the size to map when a large block is resized from `old` to `new`.
///
/// A block that grows by less than a quarter is likely to grow again, so we map an eighth more than
/// its new size. The extra pages use no memory until the program accesses them.
fn with_room(old: Layout, new: Layout) -> usize {
    let grows_a_little = new.size() > old.size() && new.size() - old.size() < old.size() / 4;
    // A layout has at most isize::MAX bytes, so the addition cannot overflow.
    if grows_a_little { new.size() + new.size() / 8 } else { new.size() }
}

/// Returns a pointer to zero bytes, aligned for `layout`.
fn nothing(layout: Layout) -> NonNull<u8> {
    NonZero::new(layout.align()).map_or(NonNull::dangling(), NonNull::without_provenance)
}
