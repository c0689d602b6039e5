//! The array of all arena records, which doubles when it is full. CPython: `arenas`, `new_arena`.

use core::{ptr::NonNull, slice};

use raw_mem::MemAlloc;

use crate::{arena::Arena, pool::arena_index::ArenaIndex};

/// The number of records in the first array. CPython: `INITIAL_ARENA_OBJECTS`.
const INITIAL_RECORDS: usize = 16;

#[derive(Debug)]
pub(crate) struct ArenaSlots {
    /// # Invariant
    ///
    /// A block of the metadata allocator with `len` initialised records. Dangling if `len` is 0.
    records: NonNull<Arena>,
    len: usize,
}

impl ArenaSlots {
    pub(crate) const fn new() -> Self {
        Self { records: NonNull::dangling(), len: 0 }
    }

    /// Doubles the array and returns the new indices, or `None` if there is no memory. O(records).
    pub(crate) fn grow<A: MemAlloc>(&mut self, lower: &A) -> Option<core::ops::Range<usize>> {
        let len = if self.len == 0 { INITIAL_RECORDS } else { self.len.checked_mul(2)? };
        if u32::try_from(len).is_err() {
            return None;
        }
        let bytes = len.checked_mul(size_of::<Arena>())?;
        let old = Some(self.records.cast()).filter(|_| self.len > 0);
        // SAFETY: `old` is `None` or a live block (invariant of `records`), and is replaced below.
        let records = unsafe { lower.realloc(old, bytes) }?.cast::<Arena>();
        let new = self.len..len;
        for index in new.clone() {
            // SAFETY: the block is aligned like a `usize`, and has room for `len` records.
            unsafe { records.add(index).write(Arena::UNUSED) };
        }
        // INVARIANT: `realloc` has copied the old records, and the new ones were written above.
        (self.records, self.len) = (records, len);
        Some(new)
    }

    pub(crate) fn all(&self) -> &[Arena] {
        // SAFETY: `records` holds `len` initialised records (invariant of `records`).
        unsafe { slice::from_raw_parts(self.records.as_ptr(), self.len) }
    }

    fn all_mut(&mut self) -> &mut [Arena] {
        // SAFETY: `records` holds `len` initialised records (invariant of `records`).
        unsafe { slice::from_raw_parts_mut(self.records.as_ptr(), self.len) }
    }

    /// Frees the array to `lower`. All records must be unused.
    pub(crate) fn free<A: MemAlloc>(&mut self, lower: &A) {
        let old = core::mem::replace(self, Self::new());
        if old.len > 0 {
            // SAFETY: the array is a live block of `lower` (invariant of `records`), and unused.
            unsafe { lower.free(Some(old.records.cast())) }
        }
    }
}

impl core::ops::Index<ArenaIndex> for ArenaSlots {
    type Output = Arena;

    fn index(&self, index: ArenaIndex) -> &Arena {
        &self.all()[index.get()]
    }
}

impl core::ops::IndexMut<ArenaIndex> for ArenaSlots {
    fn index_mut(&mut self, index: ArenaIndex) -> &mut Arena {
        &mut self.all_mut()[index.get()]
    }
}
