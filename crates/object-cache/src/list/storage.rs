//! The layout of an object's storage, and its allocation from the allocator below a cache.

use core::ptr::NonNull;

use raw_mem::MemAlloc;

use super::FreeObject;

/// The greatest alignment that an object in a cache may need, in bytes. The blocks of a
/// [`MemAlloc`] are not guaranteed to have a greater alignment.
const MAX_ALIGN: usize = 16;

/// The layout of an object's storage. The storage always has room for a link, because a free object
/// contains the link to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Storage {
    pub(crate) bytes: usize,
    pub(crate) align: usize,
}

impl Storage {
    /// Returns the layout of storage for a `T`.
    pub(crate) const fn of<T>() -> Self {
        Self::new(size_of::<T>(), align_of::<T>())
    }

    /// Returns the layout of storage that has room for a `T`, and also for a link and a count while
    /// it holds no `T`. An object with such storage can be the first one of a magazine, which
    /// stores the count.
    pub(crate) const fn of_magazine<T>() -> Self {
        let Self { bytes, align } = Self::of::<T>();
        Self { bytes: max(bytes, size_of::<FreeObject>()), align }
    }

    /// Returns the layout of storage for `bytes` bytes that are aligned to `align`.
    ///
    /// # Panics
    ///
    /// Panics if `align` is more than 16 bytes.
    pub(crate) const fn new(bytes: usize, align: usize) -> Self {
        assert!(align <= MAX_ALIGN, "an object in a cache may be aligned to at most 16 bytes");
        Self {
            bytes: max(bytes, size_of::<Option<NonNull<FreeObject>>>()),
            align: max(align, align_of::<FreeObject>()),
        }
    }

    /// Allocates storage from `lower`.
    ///
    /// Returns `None` if the allocation fails, or if the allocated block is insufficiently aligned
    /// for the object. The latter can happen if `lower` is a heap with one of CPython's oldest
    /// geometries, whose blocks are aligned to only 8 bytes.
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

    /// An allocator whose blocks are aligned to 8 bytes, but not to 16.
    struct EightBytes;

    // SAFETY: each block lies in a block of malloc. The documentation of this type states that the
    // alignment is smaller than usual.
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
            // SAFETY: every block of this allocator begins 8 bytes after the start of a block that
            // malloc returned.
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
