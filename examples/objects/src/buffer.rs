//! A growing array in the layers' memory: what lists and dicts are made of.

use core::{
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut, Range},
    ptr::NonNull,
};

use raw_mem::MemAlloc;

use crate::Layers;

/// A `Vec` in the memory of `L`, which grows as CPython's lists do.
pub struct Buffer<T, L: Layers> {
    /// # Invariant
    ///
    /// Dangling while `capacity` is 0, else a block of ours with room for `capacity` items, of
    /// which the first `len` are live.
    start: NonNull<T>,
    len: usize,
    capacity: usize,
    owns: PhantomData<(T, L)>,
}

impl<T, L: Layers> Default for Buffer<T, L> {
    fn default() -> Self {
        const { assert!(align_of::<T>() <= 16 && size_of::<T>() > 0) };
        Self { start: NonNull::dangling(), len: 0, capacity: 0, owns: PhantomData }
    }
}

impl<T, L: Layers> Buffer<T, L> {
    fn block(&self) -> Option<NonNull<u8>> {
        (self.capacity > 0).then_some(self.start.cast())
    }

    /// Makes room for at least `room` items in all, with room to spare if it must move.
    ///
    /// # Panics
    ///
    /// Panics when there is no memory.
    fn reserve(&mut self, room: usize) {
        if room > self.capacity {
            // CPython: `list_resize`.
            self.set_capacity((room + (room >> 3) + 6) & !3);
        }
    }

    fn set_capacity(&mut self, capacity: usize) {
        let bytes = capacity * size_of::<T>();
        // SAFETY: `start`'s invariant; what is live stays within the smaller size.
        let block = unsafe { L::store().below.realloc(self.block(), bytes) };
        // INVARIANT: the block has room for that many.
        self.start = block.expect("memory for a buffer").cast();
        self.capacity = capacity;
    }

    /// Appends `item`.
    #[inline]
    pub fn push(&mut self, item: T) {
        self.reserve(self.len + 1);
        // SAFETY: there is room for one more.
        unsafe { self.start.add(self.len).write(item) };
        self.len += 1;
    }

    /// Takes the last item off.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: it was live, and is not ours any more.
        Some(unsafe { self.start.add(self.len).read() })
    }

    /// Takes an item out; those behind it move up.
    ///
    /// # Panics
    ///
    /// Panics when there is none at `index`.
    pub fn remove(&mut self, index: usize) -> T {
        self[index..].rotate_left(1);
        self.pop().expect("an item was rotated here")
    }

    /// Drops a range of items; those behind it move up.
    ///
    /// # Panics
    ///
    /// Panics when the range is not inside.
    pub fn remove_range(&mut self, range: Range<usize>) {
        let count = range.len();
        self[range.start..].rotate_left(count);
        (0..count).for_each(|_| drop(self.pop()));
    }

    /// Drops all items; the room stays.
    pub fn clear(&mut self) {
        while self.pop().is_some() {}
    }
}

impl<T, L: Layers> Deref for Buffer<T, L> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `start`'s invariant.
        unsafe { NonNull::slice_from_raw_parts(self.start, self.len).as_ref() }
    }
}

impl<T, L: Layers> DerefMut for Buffer<T, L> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: `start`'s invariant; `&mut self` is the only way to it.
        unsafe { NonNull::slice_from_raw_parts(self.start, self.len).as_mut() }
    }
}

impl<T, L: Layers> Extend<T> for Buffer<T, L> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        items.into_iter().for_each(|item| self.push(item));
    }
}

impl<T, L: Layers> Drop for Buffer<T, L> {
    fn drop(&mut self) {
        self.clear();
        // SAFETY: `start`'s invariant, and nothing is live in it.
        unsafe { L::store().below.free(self.block()) }
    }
}

impl<T: fmt::Debug, L: Layers> fmt::Debug for Buffer<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
