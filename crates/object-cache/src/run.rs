//! A pointer that owns an object of a family by length: a header and its items.

use core::{
    fmt,
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

use raw_mem::MemAlloc;

use crate::KeyedFreeList;

/// Owns a header `H` and a run of items `E`, as `Box<(H, [E])>` would. Dereferences to the items.
///
/// When the pointer is dropped the items and the header are dropped, and the storage goes back to
/// the list of its length.
///
/// ```
/// use object_cache::KeyedFreeList;
/// use raw_mem::Malloc;
///
/// let tuples = KeyedFreeList::<(), String, _, 20>::new(2_000, Malloc);
/// let pair = tuples.run((), 2, |index| format!("item {index}")).unwrap();
/// assert_eq!(pair[1], "item 1");
/// drop(pair);
/// assert_eq!(tuples.stats(2).unwrap().free, 1);
/// ```
pub struct CachedRun<'c, H, E, A: MemAlloc, const LENGTHS: usize> {
    /// # Invariant
    ///
    /// Came from `home` with `len`, and holds a live header and live items that are ours.
    object: NonNull<H>,
    len: usize,
    home: &'c KeyedFreeList<H, E, A, LENGTHS>,
}

impl<H, E, A: MemAlloc, const LENGTHS: usize> KeyedFreeList<H, E, A, LENGTHS> {
    /// Makes an object of `len` items. `None` when there is no memory; `header` is dropped and
    /// `item` is not called then.
    ///
    /// # Panics
    ///
    /// Panics when `item` does; the header and the items made so far are dropped, and the storage
    /// is put back.
    pub fn run(
        &self,
        header: H,
        len: usize,
        mut item: impl FnMut(usize) -> E,
    ) -> Option<CachedRun<'_, H, E, A, LENGTHS>> {
        let object = self.take(len)?;
        // SAFETY: the storage has room for a header, and is ours.
        unsafe { object.write(header) };
        let mut begun = Begun { object, made: 0, len, home: self };
        while begun.made < len {
            let value = item(begun.made);
            // SAFETY: the storage has room for `len` items, and is ours.
            unsafe { Self::items(object).add(begun.made).write(value) };
            begun.made += 1;
        }
        core::mem::forget(begun);
        // INVARIANT: header and items were written.
        Some(CachedRun { object, len, home: self })
    }
}

impl<H, E, A: MemAlloc, const LENGTHS: usize> CachedRun<'_, H, E, A, LENGTHS> {
    /// The header.
    pub fn header(&self) -> &H {
        // SAFETY: `object`'s invariant.
        unsafe { self.object.as_ref() }
    }

    /// The header, for writing.
    pub fn header_mut(&mut self) -> &mut H {
        // SAFETY: `object`'s invariant; `&mut self` is the only way to it.
        unsafe { self.object.as_mut() }
    }

    fn items(&self) -> NonNull<[E]> {
        // SAFETY: the object came from a cache of this type.
        let first = unsafe { KeyedFreeList::<H, E, A, LENGTHS>::items(self.object) };
        NonNull::slice_from_raw_parts(first, self.len)
    }
}

impl<H, E, A: MemAlloc, const LENGTHS: usize> Deref for CachedRun<'_, H, E, A, LENGTHS> {
    type Target = [E];

    #[inline]
    fn deref(&self) -> &[E] {
        // SAFETY: `object`'s invariant.
        unsafe { self.items().as_ref() }
    }
}

impl<H, E, A: MemAlloc, const LENGTHS: usize> DerefMut for CachedRun<'_, H, E, A, LENGTHS> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [E] {
        // SAFETY: `object`'s invariant; `&mut self` is the only way to it.
        unsafe { self.items().as_mut() }
    }
}

impl<H, E, A: MemAlloc, const LENGTHS: usize> Drop for CachedRun<'_, H, E, A, LENGTHS> {
    fn drop(&mut self) {
        // All of the run is what was made of it.
        drop(Begun { object: self.object, made: self.len, len: self.len, home: self.home });
    }
}

impl<H: fmt::Debug, E: fmt::Debug, A: MemAlloc, const LENGTHS: usize> fmt::Debug
    for CachedRun<'_, H, E, A, LENGTHS>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CachedRun").field(self.header()).field(&&**self).finish()
    }
}

/// A run whose header and first `made` items are live. Dropping it ends them, items first, and
/// puts the storage; a panic on the way leaves none of this out.
struct Begun<'c, H, E, A: MemAlloc, const LENGTHS: usize> {
    object: NonNull<H>,
    made: usize,
    len: usize,
    home: &'c KeyedFreeList<H, E, A, LENGTHS>,
}

impl<H, E, A: MemAlloc, const LENGTHS: usize> Drop for Begun<'_, H, E, A, LENGTHS> {
    fn drop(&mut self) {
        let _storage = Emptied { object: self.object, len: self.len, home: self.home };
        let _header = Header(self.object);
        // SAFETY: the object came from a cache of this type.
        let first = unsafe { KeyedFreeList::<H, E, A, LENGTHS>::items(self.object) };
        // SAFETY: that many items are live, ours, and not used again.
        unsafe { NonNull::slice_from_raw_parts(first, self.made).drop_in_place() };
    }
}

/// A live header, dropped in its place.
struct Header<H>(NonNull<H>);

impl<H> Drop for Header<H> {
    fn drop(&mut self) {
        // SAFETY: `Begun` is being dropped, whose header is live, ours, and not used again.
        unsafe { self.0.drop_in_place() };
    }
}

/// Storage in which no value is left when this is dropped.
struct Emptied<'c, H, E, A: MemAlloc, const LENGTHS: usize> {
    object: NonNull<H>,
    len: usize,
    home: &'c KeyedFreeList<H, E, A, LENGTHS>,
}

impl<H, E, A: MemAlloc, const LENGTHS: usize> Drop for Emptied<'_, H, E, A, LENGTHS> {
    fn drop(&mut self) {
        // SAFETY: `Begun` took the storage with this length and has dropped what was in it.
        unsafe { self.home.put(self.object, self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Below, Log, Logged, Plan, below, failing, panic_of};

    type Tuples = KeyedFreeList<Logged, Logged, Below, 3>;

    #[test]
    fn items_are_dropped_in_order_and_then_the_header() {
        let log = Log::default();
        let tuples = Tuples::new(10, below().0);
        let mut run = tuples.run(log.value(9), 3, |index| log.value(index as u32)).unwrap();
        run[1].id = 7;
        run.header_mut().id = 8;
        assert_eq!((run.len(), run[1].id, run.header().id), (3, 7, 8));
        drop(run);
        assert_eq!(log.dropped(), [0, 7, 2, 8]);
        assert_eq!(tuples.stats(3).unwrap().free, 1);
    }

    #[test]
    fn an_item_that_cannot_be_made_takes_the_others_with_it() {
        let log = Log::default();
        let tuples = Tuples::new(10, below().0);
        let make = |index| if index < 2 { log.value(index as u32) } else { panic!("no item") };
        assert_eq!(panic_of(|| drop(tuples.run(log.value(9), 3, make))), "no item");
        assert_eq!(log.dropped(), [0, 1, 9]);
        assert_eq!(tuples.stats(3).unwrap().free, 1);
    }

    #[test]
    fn an_item_that_panics_while_dropped_leaves_nothing_out() {
        let log = Log::default();
        let tuples = Tuples::new(10, below().0);
        let run = tuples.run(log.value(9), 3, |index| log.value(index as u32));
        log.arm([1]);
        assert_eq!(panic_of(|| drop(run)), "bomb 1");
        assert_eq!(log.dropped(), [0, 1, 2, 9]);
        assert_eq!(tuples.stats(3).unwrap().free, 1);
    }

    #[test]
    fn without_memory_no_item_is_made_and_the_header_is_dropped() {
        let log = Log::default();
        let tuples = Tuples::new(10, failing(Plan::From(1)).0);
        assert!(tuples.run(log.value(9), 3, |index| log.value(index as u32)).is_none());
        assert_eq!(log.dropped(), [9]);
    }

    #[test]
    fn a_run_of_nothing_has_a_header() {
        let log = Log::default();
        let tuples = Tuples::new(10, below().0);
        drop(tuples.run(log.value(9), 0, |index| log.value(index as u32)));
        assert_eq!(log.dropped(), [9]);
    }
}
