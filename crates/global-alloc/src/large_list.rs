//! The large memory of a heap that takes it along when it goes: a list through all of it.
//!
//! ```text
//!   head ─► ┌───────┬─ ─ ─┬────────────┐ ⇄ ┌───────┬─ ─ ─┬────────────┐
//!           │ links │     │ the caller's│   │ links │     │ the caller's│
//!           └───────┴─ ─ ─┴────────────┘   └───────┴─ ─ ─┴────────────┘
//!           ├─── offset ──┤ a multiple of the alignment, told by the layout
//! ```

use std::{alloc::Layout, cell::Cell, ptr::NonNull};

use crate::large;

/// What stands before the caller's memory.
#[derive(Debug)]
struct Links {
    prev: Cell<Option<NonNull<Links>>>,
    next: Cell<Option<NonNull<Links>>>,
}

/// Large memory that goes when the list goes.
#[derive(Debug)]
pub(crate) struct LargeList {
    /// # Invariant
    ///
    /// The head of a doubly linked list of blocks of the C library that are this list's: each
    /// begins with its `Links`, and is freed when it leaves the list.
    head: Cell<Option<NonNull<Links>>>,
}

// SAFETY: the blocks belong to the list and move with it; the C library's blocks are not tied to a
// thread.
unsafe impl Send for LargeList {}

/// Bytes from the start of a block to the caller's memory.
fn offset(layout: Layout) -> usize {
    layout.align().max(size_of::<Links>())
}

/// The layout of a block around `layout`; `None` if there can be none.
fn around(layout: Layout) -> Option<Layout> {
    let offset = offset(layout);
    Layout::from_size_align(layout.size().checked_add(offset)?, offset).ok()
}

/// The block around the caller's memory at `ptr`.
///
/// # Safety
///
/// `ptr` came from a list for `layout`.
unsafe fn block_around(ptr: NonNull<u8>, layout: Layout) -> NonNull<Links> {
    // SAFETY: the caller's memory begins that far into the block.
    unsafe { ptr.sub(offset(layout)) }.cast()
}

impl LargeList {
    pub(crate) const fn new() -> Self {
        Self { head: Cell::new(None) }
    }

    /// Memory for `layout`, uninitialised.
    pub(crate) fn alloc(&self, layout: Layout) -> Option<NonNull<u8>> {
        Some(self.enter(large::alloc(around(layout)?)?, layout))
    }

    /// Memory for `layout`, all zero.
    pub(crate) fn alloc_zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
        Some(self.enter(large::alloc_zeroed(around(layout)?)?, layout))
    }

    /// Makes memory hold `size` bytes, moving it if it must. On `None` it stands untouched.
    ///
    /// # Safety
    ///
    /// `ptr` is live memory of this list for `layout`; `size` and its alignment make a layout.
    pub(crate) unsafe fn resize(
        &self,
        ptr: NonNull<u8>,
        layout: Layout,
        size: usize,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the caller's promise.
        let new = around(unsafe { Layout::from_size_align_unchecked(size, layout.align()) })?;
        let old = around(layout)?;
        // SAFETY: the caller's promise.
        let block = unsafe { block_around(ptr, layout) };
        // SAFETY: the block came from there for the layout around; its links move along.
        let block = unsafe { large::resize(block.cast(), old, new.size()) }?.cast();
        // SAFETY: the block has its links, and its neighbours are in the list.
        unsafe { self.link_neighbours(block) };
        // SAFETY: the block is longer than the offset.
        Some(unsafe { block.cast::<u8>().add(offset(layout)) })
    }

    /// Takes memory back.
    ///
    /// # Safety
    ///
    /// `ptr` is live memory of this list for `layout`, and is not used again.
    pub(crate) unsafe fn free(&self, ptr: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        let block = unsafe { block_around(ptr, layout) };
        // SAFETY: the block is in the list, so it and its neighbours have links.
        unsafe {
            let Links { prev, next } = block.as_ref();
            if let Some(next) = next.get() {
                next.as_ref().prev.set(prev.get());
            }
            self.link_behind(prev.get()).set(next.get());
        }
        // SAFETY: it has left the list, and the caller gives it up.
        unsafe { large::free(block.cast()) };
    }

    /// Takes everything back. O(blocks).
    pub(crate) fn clear(&mut self) {
        let mut rest = self.head.take();
        while let Some(block) = rest {
            // SAFETY: the block is in the list.
            rest = unsafe { block.as_ref() }.next.get();
            // SAFETY: the list has forgotten it, and is borrowed alone, so nobody uses the block.
            unsafe { large::free(block.cast()) };
        }
    }

    /// Puts a block around `layout` before all others, and returns the caller's part.
    fn enter(&self, block: NonNull<u8>, layout: Layout) -> NonNull<u8> {
        let links = block.cast::<Links>();
        // SAFETY: the block is ours, longer than its links, and aligned to words.
        unsafe { links.write(Links { prev: Cell::new(None), next: self.head.clone() }) };
        // SAFETY: the links were written just now; the old head is in the list.
        unsafe { self.link_neighbours(links) };
        // SAFETY: the block is longer than the offset.
        unsafe { block.add(offset(layout)) }
    }

    /// Makes the neighbours of `block` link to it.
    ///
    /// # Safety
    ///
    /// The block's links are to its neighbours in this list.
    unsafe fn link_neighbours(&self, block: NonNull<Links>) {
        // SAFETY: the caller's promise; neighbours are in the list.
        unsafe {
            let Links { prev, next } = block.as_ref();
            if let Some(next) = next.get() {
                next.as_ref().prev.set(Some(block));
            }
            self.link_behind(prev.get()).set(Some(block));
        }
    }

    /// The link from `prev`, or from the head, to what comes next.
    ///
    /// # Safety
    ///
    /// `prev` is in this list.
    unsafe fn link_behind(&self, prev: Option<NonNull<Links>>) -> &Cell<Option<NonNull<Links>>> {
        match prev {
            // SAFETY: the caller's promise; it stays in the list while this is borrowed.
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
        Err(_) => panic!("it is a layout"),
    };

    /// Bytes that the C library has in mappings of their own, as it has large blocks.
    fn mapped() -> usize {
        // SAFETY: it may be called at any time.
        unsafe { libc::mallinfo2() }.hblkhd
    }

    #[test]
    fn a_list_that_is_cleared_or_dropped_gives_its_blocks_back() {
        let before = mapped();
        let has_a_block = || mapped() >= before + BLOCK.size();
        let mut list = LargeList::new();
        assert!(list.alloc(BLOCK).is_some() && has_a_block());
        list.clear();
        assert!(!has_a_block());
        assert!(list.alloc(BLOCK).is_some() && has_a_block());
        drop(list);
        assert!(!has_a_block());
    }
}
