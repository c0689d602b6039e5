//! A list of large allocations that frees them when it is dropped.
//!
//! ```text
//!   head ─► ┌───────┬─ ─ ─┬────────────┐ ⇄ ┌───────┬─ ─ ─┬────────────┐
//!           │ links │     │ user memory │   │ links │     │ user memory │
//!           └───────┴─ ─ ─┴────────────┘   └───────┴─ ─ ─┴────────────┘
//!           ├─── offset ──┤ a multiple of the alignment, known from the layout
//! ```

use std::{alloc::Layout, cell::Cell, ptr::NonNull};

use crate::large::{self, Init};

#[derive(Debug)]
struct Links {
    prev: Cell<Option<NonNull<Links>>>,
    next: Cell<Option<NonNull<Links>>>,
}

#[derive(Debug)]
pub(crate) struct LargeList {
    /// # Invariant
    ///
    /// `head` is `None` or points to the first block of a doubly linked list.
    ///
    /// Each block is live, starts with `Links` and belongs to no other list.
    head: Cell<Option<NonNull<Links>>>,
}

// SAFETY: the list owns its blocks, and any thread may free a block of the C library.
unsafe impl Send for LargeList {}

/// Returns the distance in bytes from the start of a block to the user's memory.
fn offset(layout: Layout) -> usize {
    layout.align().max(size_of::<Links>())
}

/// Returns the layout of a block of links and user memory, or `None` if it would be too large.
fn around(layout: Layout) -> Option<Layout> {
    let offset = offset(layout);
    Layout::from_size_align(layout.size().checked_add(offset)?, offset).ok()
}

/// Returns the block that contains the user's memory at `ptr`.
///
/// # Safety
///
/// - `ptr` must be live memory that a list allocated for `layout`.
unsafe fn block_around(ptr: NonNull<u8>, layout: Layout) -> NonNull<Links> {
    // SAFETY: the user's memory starts at this offset from the start of its block.
    unsafe { ptr.sub(offset(layout)) }.cast()
}

impl LargeList {
    pub(crate) const fn new() -> Self {
        Self { head: Cell::new(None) }
    }

    /// Allocates memory that the caller owns until it is freed or the list is dropped.
    ///
    /// The memory stays valid when the list is moved.
    pub(crate) fn alloc(&self, layout: Layout, init: Init) -> Option<NonNull<u8>> {
        Some(self.insert(large::alloc(around(layout)?, init)?, layout))
    }

    /// Resizes memory to `size` bytes, and may move it. On `None`, the memory is unchanged.
    ///
    /// # Safety
    ///
    /// - `ptr` must point to live memory that this list allocated for `layout`.
    /// - `size` and `layout.align()` must form a valid layout.
    pub(crate) unsafe fn resize(
        &self,
        ptr: NonNull<u8>,
        layout: Layout,
        size: usize,
    ) -> Option<NonNull<u8>> {
        // SAFETY: `size` and the alignment are a valid layout (contract of `resize`).
        let new = around(unsafe { Layout::from_size_align_unchecked(size, layout.align()) })?;
        let old = around(layout)?;
        // SAFETY: `ptr` is memory of this list for `layout` (contract of `resize`).
        let block = unsafe { block_around(ptr, layout) };
        // SAFETY: the block came from the C library for `old`.
        let block = unsafe { large::resize(block.cast(), old, new.size()) }?.cast();
        // SAFETY: the block starts with its links, which were copied if it moved, and its
        // neighbours are still in the list.
        unsafe { self.link_neighbours(block) };
        // SAFETY: the block is larger than this offset.
        Some(unsafe { block.cast::<u8>().add(offset(layout)) })
    }

    /// Frees the memory at `ptr`, and removes its block from the list.
    ///
    /// # Safety
    ///
    /// - `ptr` must be live memory that this list allocated for `layout`.
    /// - The memory must not be used again.
    pub(crate) unsafe fn free(&self, ptr: NonNull<u8>, layout: Layout) {
        // SAFETY: `ptr` is memory of this list for `layout` (contract of `free`).
        let block = unsafe { block_around(ptr, layout) };
        // SAFETY: the block is in the list, so it starts with its links.
        let Links { prev, next } = unsafe { block.as_ref() };
        if let Some(next) = next.get() {
            // SAFETY: `next` is a block in the list, so it is live.
            unsafe { next.as_ref() }.prev.set(prev.get());
        }
        // SAFETY: `prev` is `None` or in the list, which loses no block before the result is used.
        unsafe { self.link_after(prev.get()) }.set(next.get());
        // SAFETY: the block has left the list and is not used again (contract of `free`).
        unsafe { large::free(block.cast()) };
    }

    /// Frees every block of the list. O(blocks).
    pub(crate) fn clear(&mut self) {
        let mut next = self.head.take();
        while let Some(block) = next {
            // SAFETY: the block was in the list and has not been freed yet.
            next = unsafe { block.as_ref() }.next.get();
            // SAFETY: the list is borrowed mutably, so nobody uses the memory in its blocks.
            unsafe { large::free(block.cast()) };
        }
    }

    /// Inserts a new block, which must have room for `layout`, and returns its user memory.
    fn insert(&self, block: NonNull<u8>, layout: Layout) -> NonNull<u8> {
        let links = block.cast::<Links>();
        // SAFETY: the block is new, and is large and aligned enough for its links.
        unsafe { links.write(Links { prev: Cell::new(None), next: self.head.clone() }) };
        // SAFETY: the links were just written, and the old head is in the list.
        unsafe { self.link_neighbours(links) };
        // SAFETY: the block is larger than this offset.
        unsafe { block.add(offset(layout)) }
    }

    /// Makes both neighbours of `block` link to it.
    ///
    /// # Safety
    ///
    /// - `block` must start with links to its neighbours in this list.
    unsafe fn link_neighbours(&self, block: NonNull<Links>) {
        // SAFETY: the block starts with its links (contract of `link_neighbours`).
        let Links { prev, next } = unsafe { block.as_ref() };
        if let Some(next) = next.get() {
            // SAFETY: `next` is a block in the list, so it is live.
            unsafe { next.as_ref() }.prev.set(Some(block));
        }
        // SAFETY: `prev` is `None` or in the list, which loses no block before the result is used.
        unsafe { self.link_after(prev.get()) }.set(Some(block));
    }

    /// Returns the link to the block after `prev`, or to the first block if `prev` is `None`.
    ///
    /// # Safety
    ///
    /// - If `prev` is a block, it must stay in this list while the result is used.
    unsafe fn link_after(&self, prev: Option<NonNull<Links>>) -> &Cell<Option<NonNull<Links>>> {
        match prev {
            // SAFETY: the block is in the list (contract of `link_after`).
            Some(prev) => unsafe { &prev.as_ref().next },
            None => &self.head,
        }
    }
}

impl Drop for LargeList {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    const BLOCK: Layout = match Layout::from_size_align(64 << 20, 64) {
        Ok(layout) => layout,
        Err(_) => panic!("a valid layout"),
    };

    /// Returns the number of bytes that the C library has mapped for large blocks.
    fn mapped() -> usize {
        // SAFETY: the function has no requirements.
        unsafe { libc::mallinfo2() }.hblkhd
    }

    #[test]
    fn a_list_that_is_cleared_or_dropped_gives_its_blocks_back() {
        let before = mapped();
        let has_a_block = || mapped() >= before + BLOCK.size();
        let mut list = LargeList::new();
        assert!(list.alloc(BLOCK, Init::Uninit).is_some() && has_a_block());
        list.clear();
        assert!(!has_a_block());
        assert!(list.alloc(BLOCK, Init::Uninit).is_some() && has_a_block());
        drop(list);
        assert!(!has_a_block());
    }
}
