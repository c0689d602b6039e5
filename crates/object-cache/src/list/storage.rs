use core::ptr::NonNull;

use raw_mem::MemAlloc;

use super::FreeObject;

/// The greatest alignment in bytes that a [`MemAlloc`] guarantees.
const MAX_ALIGN: usize = 16;

/// The layout of an object's storage, which always has room for the link of a free object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Storage {
    pub(crate) bytes: usize,
    pub(crate) align: usize,
}

impl Storage {
    pub(crate) const fn of<T>() -> Self {
        Self::new(size_of::<T>(), align_of::<T>())
    }

    /// Returns the layout of a `T` with room for a link and a count.
    pub(crate) const fn of_magazine<T>() -> Self {
        let Self { bytes, align } = Self::of::<T>();
        Self { bytes: max(bytes, size_of::<FreeObject>()), align }
    }

    pub(crate) const fn new(bytes: usize, align: usize) -> Self {
        assert!(align <= MAX_ALIGN, "an object in a cache may be aligned to at most 16 bytes");
        Self {
            bytes: max(bytes, size_of::<Option<NonNull<FreeObject>>>()),
            align: max(align, align_of::<FreeObject>()),
        }
    }

    /// Returns `None` if the allocation fails, or if its result is not aligned for the object.
    pub(crate) fn allocate(self, lower: &impl MemAlloc) -> Option<NonNull<u8>> {
        let block = lower.malloc(self.bytes)?;
        if block.addr().get().is_multiple_of(self.align) {
            return Some(block);
        }
        // SAFETY: the block has just come from `lower`, and is not used again.
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
        assert_eq!(Storage::of_magazine::<u8>(), Storage { bytes: 16, align: 8 });
        assert_eq!(Storage::of::<[u128; 2]>(), Storage { bytes: 32, align: 16 });
    }

    struct EightBytes;

    // SAFETY: each block lies in a block of malloc. Its alignment is too small on purpose.
    unsafe impl MemAlloc for EightBytes {
        fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
            // SAFETY: the block is 8 bytes longer than requested.
            Malloc.malloc(size + 8).map(|block| unsafe { block.add(8) })
        }

        fn calloc(&self, _: usize, _: usize) -> Option<NonNull<u8>> {
            None
        }

        unsafe fn realloc(&self, _: Option<NonNull<u8>>, _: usize) -> Option<NonNull<u8>> {
            None
        }

        unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
            // SAFETY: every block begins 8 bytes after the start of a block of malloc.
            unsafe { Malloc.free(ptr.map(|block| block.sub(8))) }
        }
    }

    #[test]
    fn a_lower_layer_with_a_small_alignment_serves_objects_that_need_no_more() {
        assert_eq!(Storage::of::<u128>().allocate(&EightBytes), None);
        let block = Storage::of::<u64>().allocate(&EightBytes);
        assert!(block.is_some());
        // SAFETY: the block is live and not used again.
        unsafe { EightBytes.free(block) };
    }
}
