//! Blocks with pages of their own.
//!
//! ```text
//!   mapping                     block, aligned
//!   ├ ─ ─ ─ ─ ─ ─ ─ ┬──────┬────┴──────────────────────────┤
//!                   │ head │    usable                      │
//! ```

use std::{
    ptr::{self, NonNull},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use raw_mem::{align_up, preserving_errno};

use crate::output;

const PAGE: usize = 4096;

/// The distance from the head to the block.
const HEAD: usize = 64;

/// A number in each head, which memory of another allocator is unlikely to contain.
const MARK: usize = 0x6f62_6d61_6c6c_6f63;

const _: () = assert!(size_of::<Head>() <= HEAD);

/// The start and the length of the mapping that contains a block.
struct Head {
    mark: usize,
    mapping: NonNull<u8>,
    len: usize,
}

static BLOCKS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

pub(super) fn count() -> (usize, usize) {
    (BLOCKS.load(Relaxed), BYTES.load(Relaxed))
}

/// Allocates `size` zeroed bytes, at least one. `align` must be a power of two.
pub(super) fn alloc(size: usize, align: usize) -> Option<NonNull<u8>> {
    let before = HEAD.max(align);
    // The system aligns the mapping to a page. A larger alignment needs room to move the block.
    let room = if align > PAGE { before.checked_add(align)? } else { before };
    let len = align_up(size.checked_add(room)?, PAGE)?;
    if len > isize::MAX as usize {
        return None;
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: without MAP_FIXED, the system never replaces an existing mapping.
    let mapping = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, -1, 0) };
    if mapping == libc::MAP_FAILED {
        return None;
    }
    let mapping = NonNull::new(mapping.cast::<u8>())?;
    let address = mapping.addr().get();
    let offset = align_up(address + HEAD, align)? - address;
    // SAFETY: the mapping has room for a head, for moving the block up, and for `size` bytes.
    let block = unsafe { mapping.add(offset) };
    // SAFETY: there are `HEAD` bytes between the start of the mapping and the block.
    unsafe { head(block).write(Head { mark: MARK, mapping, len }) };
    BLOCKS.fetch_add(1, Relaxed);
    BYTES.fetch_add(len, Relaxed);
    Some(block)
}

/// # Safety
///
/// - `ptr` must be a live block with pages of its own, which is not used again.
#[inline(never)]
pub(super) unsafe fn free(ptr: NonNull<u8>) {
    // SAFETY: the block is live (contract of `free`).
    let Head { mapping, len, .. } = unsafe { checked("free", ptr) };
    // SAFETY: the head lies before the block. A second free of the block finds no mark.
    unsafe { head(ptr).as_mut() }.mark = 0;
    BLOCKS.fetch_sub(1, Relaxed);
    BYTES.fetch_sub(len, Relaxed);
    preserving_errno(|| {
        // SAFETY: the mapping contains only the block, which is not used again (contract).
        if unsafe { libc::munmap(mapping.as_ptr().cast(), len) } != 0 {
            // The process has too many mappings to split one. The memory still goes.
            // SAFETY: as above.
            unsafe { libc::madvise(mapping.as_ptr().cast(), len, libc::MADV_DONTNEED) };
        }
    });
}

/// # Safety
///
/// - `ptr` must be a live block with pages of its own.
pub(super) unsafe fn usable_size(ptr: NonNull<u8>) -> usize {
    // SAFETY: the block is live (contract of `usable_size`).
    let Head { mapping, len, .. } = unsafe { checked("measure", ptr) };
    len - (ptr.addr().get() - mapping.addr().get())
}

/// Resizes a block, and lets the system move its pages if necessary.
///
/// # Safety
///
/// - `ptr` must be a live block with pages of its own. It may move.
pub(super) unsafe fn resize(ptr: NonNull<u8>, size: usize) -> Option<NonNull<u8>> {
    // SAFETY: the block is live (contract of `resize`).
    let Head { mapping, len, .. } = unsafe { checked("resize", ptr) };
    let offset = ptr.addr().get() - mapping.addr().get();
    let new_len = align_up(size.checked_add(offset)?, PAGE)?;
    if new_len > isize::MAX as usize {
        return None;
    }
    // SAFETY: the mapping contains only the block, and the caller uses the new address (contract).
    let moved =
        unsafe { libc::mremap(mapping.as_ptr().cast(), len, new_len, libc::MREMAP_MAYMOVE) };
    if moved == libc::MAP_FAILED {
        return None;
    }
    let mapping = NonNull::new(moved.cast::<u8>())?;
    // SAFETY: the block has the same offset in the moved mapping.
    let block = unsafe { mapping.add(offset) };
    // SAFETY: the head lies before the block.
    unsafe { head(block).write(Head { mark: MARK, mapping, len: new_len }) };
    BYTES.fetch_add(new_len.wrapping_sub(len), Relaxed);
    Some(block)
}

/// # Safety
///
/// - There must be `HEAD` bytes before `block` in the same mapping.
unsafe fn head(block: NonNull<u8>) -> NonNull<Head> {
    // SAFETY: the head lies in the same mapping (contract of `head`).
    unsafe { block.sub(HEAD).cast() }
}

/// Reads the head of a block. Ends the process if `ptr` is not a block.
///
/// # Safety
///
/// - `ptr` must be a live block with pages of its own, or `HEAD` bytes before it must be readable.
unsafe fn checked(action: &str, ptr: NonNull<u8>) -> Head {
    // SAFETY: the head lies before the block (contract of `checked`).
    let head = unsafe { head(ptr).read() };
    if head.mark != MARK {
        let why = "it is not the start of memory in use by this allocator";
        output::abort(format_args!("cannot {action} the memory at {ptr:p}: {why}"));
    }
    head
}
