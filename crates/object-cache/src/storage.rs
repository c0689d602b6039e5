//! Storage for one object: where it comes from when no dead object is left.
//!
//! Storage is at least as large and as aligned as a link, since a dead object is one.

use core::ptr::NonNull;

use raw_mem::MemAlloc;

use crate::link::Dead;

/// The most that an object of a cache may be aligned to: what every `MemAlloc` promises today.
const MAX_ALIGN: usize = 16;

/// The bytes and the alignment of one object's storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Storage {
    pub(crate) bytes: usize,
    pub(crate) align: usize,
}

impl Storage {
    /// Storage for a value of `T`, or a link in its place.
    pub(crate) const fn of<T>() -> Self {
        Self::new(size_of::<T>(), align_of::<T>())
    }

    /// As [`of`](Self::of), with room for a link that leads a magazine.
    pub(crate) const fn of_lead<T>() -> Self {
        let Self { bytes, align } = Self::of::<T>();
        Self { bytes: max(bytes, size_of::<Dead>()), align }
    }

    /// Storage for `bytes`, or a link in their place.
    ///
    /// # Panics
    ///
    /// Panics when `align` is above 16 bytes.
    pub(crate) const fn new(bytes: usize, align: usize) -> Self {
        assert!(align <= MAX_ALIGN, "an object of a cache is aligned to 16 bytes at most");
        Self {
            bytes: max(bytes, size_of::<Option<NonNull<Dead>>>()),
            align: max(align, align_of::<Dead>()),
        }
    }

    /// Asks `lower` for storage.
    ///
    /// `None` when there is no memory, and when `lower` aligns its blocks to less than the
    /// object needs, as CPython's oldest profiles do.
    pub(crate) fn ask(self, lower: &impl MemAlloc) -> Option<NonNull<u8>> {
        let block = lower.malloc(self.bytes)?;
        if block.addr().get().is_multiple_of(self.align) {
            return Some(block);
        }
        // SAFETY: the block came from `lower` just now, and nobody uses it.
        unsafe { lower.free(Some(block)) };
        None
    }
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

#[cfg(test)]
mod tests {
    use raw_mem::Malloc;

    use super::*;

    #[test]
    fn storage_has_room_for_a_link() {
        assert_eq!(Storage::of::<u8>(), Storage { bytes: 8, align: 8 });
        assert_eq!(Storage::of_lead::<u8>(), Storage { bytes: 16, align: 8 });
        assert_eq!(Storage::of::<[u128; 2]>(), Storage { bytes: 32, align: 16 });
    }

    /// Aligns its blocks to 8 bytes and no more.
    struct EightBytes;

    // SAFETY: the type says that blocks are aligned to 8 bytes; the rest is malloc's.
    unsafe impl MemAlloc for EightBytes {
        fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
            // SAFETY: 8 bytes into a block that is 8 bytes longer than asked.
            Malloc.malloc(size + 8).map(|block| unsafe { block.add(8) })
        }

        fn calloc(&self, _: usize, _: usize) -> Option<NonNull<u8>> {
            None
        }

        unsafe fn realloc(&self, _: Option<NonNull<u8>>, _: usize) -> Option<NonNull<u8>> {
            None
        }

        unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
            // SAFETY: every block of this allocator begins 8 bytes into one of malloc's.
            unsafe { Malloc.free(ptr.map(|block| block.sub(8))) }
        }
    }

    #[test]
    fn a_layer_below_that_aligns_to_less_serves_what_needs_no_more() {
        assert_eq!(Storage::of::<u128>().ask(&EightBytes), None);
        let block = Storage::of::<u64>().ask(&EightBytes);
        assert!(block.is_some());
        // SAFETY: the block is live and not used again.
        unsafe { EightBytes.free(block) };
    }
}
