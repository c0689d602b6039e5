//! A growable array on pages of its own.
//!
//! A source of arenas keeps books, and must not ask an allocator for the paper: it may be the
//! one that the allocator stands on. So the array maps its own pages, and doubles them.

use core::{
    marker::PhantomData,
    ops::{Deref, DerefMut},
    ptr, slice,
};
use std::io;

use memmap2::{MmapOptions, MmapRaw};

/// The bytes of the first mapping.
const FIRST_MAPPING: usize = 4096;

/// An array that lives on its own pages.
pub(crate) struct PageVec<T> {
    /// # Invariant
    ///
    /// Large enough for `len` items; the first `len` are initialised.
    pages: Option<MmapRaw>,
    len: usize,
    items: PhantomData<T>,
}

impl<T> PageVec<T> {
    pub(crate) const fn new() -> Self {
        const { assert!(size_of::<T>() != 0 && size_of::<T>() <= FIRST_MAPPING) };
        Self { pages: None, len: 0, items: PhantomData }
    }

    /// Puts `item` at `index`, and what was there and behind it one place further.
    /// O(items behind it). On an error nothing has changed, and `item` is dropped.
    pub(crate) fn insert(&mut self, index: usize, item: T) -> io::Result<()> {
        assert!(index <= self.len);
        self.make_room()?;
        let items = self.items();
        // SAFETY: there is room for one more, so the tail of initialised items can move by one,
        // and the place it leaves may be overwritten.
        unsafe {
            let place = items.add(index);
            ptr::copy(place, place.add(1), self.len - index);
            place.write(item);
        }
        // INVARIANT: the place written is one of `len + 1` initialised ones.
        self.len += 1;
        Ok(())
    }

    /// Takes the item at `index` out. O(items behind it).
    pub(crate) fn remove(&mut self, index: usize) -> T {
        assert!(index < self.len);
        let items = self.items();
        // INVARIANT: the tail moves down by one, onto the item that is read out.
        self.len -= 1;
        // SAFETY: `index` was below `len`, so the item is initialised, and it is overwritten or
        // left behind the new end right after it is read.
        unsafe {
            let place = items.add(index);
            let item = place.read();
            ptr::copy(place.add(1), place, self.len - index);
            item
        }
    }

    fn make_room(&mut self) -> io::Result<()> {
        let bytes = self.pages.as_ref().map_or(0, MmapRaw::len);
        if (self.len + 1) * size_of::<T>() <= bytes {
            return Ok(());
        }
        let bytes = (bytes * 2).max(FIRST_MAPPING);
        let pages = MmapRaw::from(MmapOptions::new().len(bytes).map_anon()?);
        // SAFETY: the new pages are larger than the old ones and apart from them; `len` items
        // are initialised, and the old copies are forgotten with their pages.
        unsafe { ptr::copy_nonoverlapping(self.items(), pages.as_mut_ptr().cast(), self.len) };
        self.pages = Some(pages);
        Ok(())
    }

    /// The first item's place: page-aligned, or dangling while there is none.
    fn items(&self) -> *mut T {
        self.pages.as_ref().map_or(ptr::dangling_mut(), |pages| pages.as_mut_ptr().cast())
    }
}

impl<T> Deref for PageVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `pages`' invariant; the items are borrowed with the array.
        unsafe { slice::from_raw_parts(self.items(), self.len) }
    }
}

impl<T> DerefMut for PageVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: `pages`' invariant; the items are borrowed with the array.
        unsafe { slice::from_raw_parts_mut(self.items(), self.len) }
    }
}

impl<T> Drop for PageVec<T> {
    fn drop(&mut self) {
        let items: *mut [T] = &mut **self;
        // SAFETY: the items are initialised, and nobody sees them after this.
        unsafe { ptr::drop_in_place(items) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_order_through_growth_insertion_and_removal() {
        let mut array = PageVec::new();
        let mut model = Vec::new();
        for item in 0..2_000_usize {
            let index = item * 7 % (model.len() + 1);
            array.insert(index, item).unwrap();
            model.insert(index, item);
        }
        for step in 0..1_000 {
            let index = step * 13 % model.len();
            assert_eq!(array.remove(index), model.remove(index));
        }
        assert_eq!(&array[..], &model[..]);
    }

    #[test]
    fn dropping_the_array_drops_its_items_once() {
        let item = std::rc::Rc::new(());
        let mut array = PageVec::new();
        for _ in 0..10 {
            array.insert(0, std::rc::Rc::clone(&item)).unwrap();
        }
        drop(array.remove(3));
        drop(array);
        assert_eq!(std::rc::Rc::strong_count(&item), 1);
    }
}
