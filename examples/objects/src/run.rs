//! Objects whose length is fixed when they are created: tuples, instances with slots, and strings.

use std::{cell::Cell, fmt, marker::PhantomData, ops::Deref, ptr::NonNull};

use object_cache::cpython::TupleLists;
use raw_mem::MemAlloc;

use crate::{layers::Layers, value::Value};

/// What precedes the items. As in CPython, it takes three words.
#[derive(Debug)]
pub(crate) struct Head {
    count: Cell<usize>,
    len: usize,
    /// The hash of a string, or 0 if it was not computed yet.
    hash: Cell<u64>,
}

/// A counted run of items in one block.
///
/// Tuples come from the cache of their length. Instances and strings come from below the caches,
/// because CPython does not cache them either.
pub struct Run<T, L: Layers, const TUPLE: bool> {
    /// # Invariant
    ///
    /// A live head with `len` live items. The storage came from the cache of tuples if `TUPLE` is
    /// true and caches are on, and from below otherwise. The count is the number of pointers to it.
    head: NonNull<Head>,
    shares: PhantomData<(T, L)>,
}

/// A tuple.
pub type Tuple<L> = Run<Value<L>, L, true>;
/// An instance of a class with slots.
pub type Instance<L> = Run<Value<L>, L, false>;
/// A string.
pub type Text<L> = Run<u8, L, false>;

impl<T, L: Layers, const TUPLE: bool> Run<T, L, TUPLE> {
    /// Makes a run of `len` items that `write` initialises.
    ///
    /// # Panics
    ///
    /// Panics if there is no memory.
    ///
    /// # Safety
    ///
    /// `write` must initialise `len` items from the pointer that it receives.
    unsafe fn build(len: usize, write: impl FnOnce(NonNull<T>)) -> Self {
        const { assert!(align_of::<T>() <= align_of::<Head>()) };
        let storage = if TUPLE && L::CACHED {
            L::store().tuples.take(len)
        } else {
            let bytes = size_of::<Head>() + len * size_of::<T>();
            L::store().below.malloc(bytes).map(NonNull::cast)
        };
        let head: NonNull<Head> = storage.expect("there is no memory for an object");
        // SAFETY: the storage has room for a head and has no other owner.
        unsafe { head.write(Head { count: Cell::new(1), len, hash: Cell::new(0) }) };
        // INVARIANT: the head has been written, and `write` initialises the items.
        let run = Self { head, shares: PhantomData };
        write(run.items().cast());
        run
    }

    #[inline]
    fn head(&self) -> &Head {
        // SAFETY: `head`'s invariant.
        unsafe { self.head.as_ref() }
    }

    fn items(&self) -> NonNull<[T]> {
        // SAFETY: storage from below has the layout of a tuple's, too.
        let first = unsafe { TupleLists::<Head, T, L::Below, 1>::items(self.head) };
        NonNull::slice_from_raw_parts(first, self.head().len)
    }

    /// Returns true if both are the same object.
    pub fn is(&self, other: &Self) -> bool {
        self.head == other.head
    }
}

impl<L: Layers, const TUPLE: bool> Run<Value<L>, L, TUPLE> {
    /// Makes a run of these values.
    ///
    /// # Panics
    ///
    /// Panics if there is no memory.
    pub fn new<const N: usize>(values: [Value<L>; N]) -> Self {
        // SAFETY: all `N` items are written.
        unsafe { Self::build(N, |items| items.cast().write(values)) }
    }
}

impl<L: Layers> Text<L> {
    /// Makes a string of the concatenation of `parts`.
    ///
    /// # Panics
    ///
    /// Panics if there is no memory.
    pub fn concat(parts: &[&str]) -> Self {
        let len = parts.iter().map(|part| part.len()).sum();
        let write = |mut end: NonNull<u8>| {
            for part in parts {
                // SAFETY: `len` counts every part, and new storage overlaps none of them.
                unsafe { end.copy_from_nonoverlapping(NonNull::from(*part).cast(), part.len()) };
                // SAFETY: as above.
                end = unsafe { end.add(part.len()) };
            }
        };
        // SAFETY: the parts have `len` bytes together.
        unsafe { Self::build(len, write) }
    }

    /// Returns the hash of the characters, which is computed once.
    pub fn hash(&self) -> u64 {
        let hash = &self.head().hash;
        if hash.get() == 0 {
            // FNV-1a.
            let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            hash.set(self.bytes().fold(0xcbf2_9ce4_8422_2325, step).max(1));
        }
        hash.get()
    }
}

impl<L: Layers> Instance<L> {
    /// Returns another pointer to the value of a slot.
    ///
    /// # Panics
    ///
    /// Panics if there is no such slot.
    #[inline]
    pub fn get(&self, slot: usize) -> Value<L> {
        // SAFETY: `head`'s invariant, and nothing changes an instance after it was created.
        let slots = unsafe { self.items().as_ref() };
        slots[slot].clone()
    }
}

impl<L: Layers> Deref for Tuple<L> {
    type Target = [Value<L>];

    #[inline]
    fn deref(&self) -> &[Value<L>] {
        // SAFETY: `head`'s invariant, and nothing changes a tuple after it was created.
        unsafe { self.items().as_ref() }
    }
}

impl<L: Layers> Deref for Text<L> {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        // SAFETY: `head`'s invariant, and nothing changes a string after it was created.
        let bytes = unsafe { self.items().as_ref() };
        // SAFETY: `concat` wrote whole strings.
        unsafe { str::from_utf8_unchecked(bytes) }
    }
}

impl<T, L: Layers, const TUPLE: bool> Clone for Run<T, L, TUPLE> {
    #[inline]
    fn clone(&self) -> Self {
        let count = &self.head().count;
        // INVARIANT: there is one more pointer. The count cannot overflow, because this program
        // forgets no pointers and memory has no room for as many.
        count.set(count.get() + 1);
        Self { head: self.head, shares: PhantomData }
    }
}

impl<T, L: Layers, const TUPLE: bool> Drop for Run<T, L, TUPLE> {
    #[inline]
    fn drop(&mut self) {
        let Head { count, len, .. } = self.head();
        // INVARIANT: there is one pointer fewer.
        count.set(count.get() - 1);
        if count.get() > 0 {
            return;
        }
        let len = *len;
        // SAFETY: this was the last pointer, so nothing else uses the items.
        unsafe { self.items().drop_in_place() };
        if TUPLE && L::CACHED {
            // SAFETY: the storage came from the cache with this length, and holds no live item.
            unsafe { L::store().tuples.put(self.head, len) }
        } else {
            // SAFETY: the storage came from below, and is not used again.
            unsafe { L::store().below.free(Some(self.head.cast())) }
        }
    }
}

impl<T, L: Layers, const TUPLE: bool> fmt::Debug for Run<T, L, TUPLE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of {} items", self.head().len)
    }
}
