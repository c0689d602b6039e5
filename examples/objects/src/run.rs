//! Objects whose length is fixed when they are created: tuples, instances with slots, and strings.

use std::{cell::Cell, fmt, marker::PhantomData, ops::Deref, ptr::NonNull};

use object_cache::cpython::TupleLists;
use raw_mem::MemAlloc;

use crate::{layers::Layers, value::Value};

/// The header of a run, which precedes its items. As in CPython, the header takes three words.
#[derive(Debug)]
pub(crate) struct Head {
    count: Cell<usize>,
    len: usize,
    /// The hash of a string, or 0 if the hash has not been computed yet.
    hash: Cell<u64>,
}

/// A reference-counted pointer to a run of items, which are in one block together with a header.
///
/// The storage of a tuple comes from the cache of tuples with its length. The storage of instances
/// and strings comes from the layers below the caches, because CPython does not cache them either.
pub struct Run<T, L: Layers, const TUPLE: bool> {
    /// # Invariant
    ///
    /// `head` points to a live header, which is followed by `len` live items. If `TUPLE` is true
    /// and the caches are on, the storage came from the cache of tuples. Otherwise the storage came
    /// from the layers below. The count in the header is the number of pointers to the run.
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
    /// Creates a run of `len` items, which `write` must initialise.
    ///
    /// # Panics
    ///
    /// Panics if memory is exhausted.
    ///
    /// # Safety
    ///
    /// - `write` must initialise `len` items, beginning at the pointer that it receives.
    unsafe fn build(len: usize, write: impl FnOnce(NonNull<T>)) -> Self {
        const { assert!(align_of::<T>() <= align_of::<Head>()) };
        let storage = if TUPLE && L::CACHED {
            L::store().tuples.take(len)
        } else {
            let bytes = size_of::<Head>() + len * size_of::<T>();
            L::store().below.malloc(bytes).map(NonNull::cast)
        };
        let head: NonNull<Head> = storage.expect("there is no memory for an object");
        // SAFETY: the storage has room for a header, and nothing else uses the storage yet.
        unsafe { head.write(Head { count: Cell::new(1), len, hash: Cell::new(0) }) };
        // INVARIANT: the header has just been written, and `write` initialises the items.
        let run = Self { head, shares: PhantomData };
        write(run.items().cast());
        run
    }

    #[inline]
    fn head(&self) -> &Head {
        // SAFETY: `head` points to a live header (invariant of `head`).
        unsafe { self.head.as_ref() }
    }

    fn items(&self) -> NonNull<[T]> {
        // SAFETY: storage from the layers below has the same layout as the storage of a tuple.
        let first = unsafe { TupleLists::<Head, T, L::Below, 1>::items(self.head) };
        NonNull::slice_from_raw_parts(first, self.head().len)
    }

    /// Returns true if `self` and `other` point to the same object.
    pub fn is(&self, other: &Self) -> bool {
        self.head == other.head
    }
}

impl<L: Layers, const TUPLE: bool> Run<Value<L>, L, TUPLE> {
    /// Creates a run of these values.
    ///
    /// # Panics
    ///
    /// Panics if memory is exhausted.
    pub fn new<const N: usize>(values: [Value<L>; N]) -> Self {
        // SAFETY: the closure initialises all `N` items.
        unsafe { Self::build(N, |items| items.cast().write(values)) }
    }
}

impl<L: Layers> Text<L> {
    /// Creates a string by concatenating `parts`.
    ///
    /// # Panics
    ///
    /// Panics if memory is exhausted.
    pub fn concat(parts: &[&str]) -> Self {
        let len = parts.iter().map(|part| part.len()).sum();
        let write = |mut end: NonNull<u8>| {
            for part in parts {
                // SAFETY: `len` is the length of all parts together, and the new storage does not
                // overlap them.
                unsafe { end.copy_from_nonoverlapping(NonNull::from(*part).cast(), part.len()) };
                // SAFETY: `len` includes the length of this part, so `end` stays in the storage or
                // at its end.
                end = unsafe { end.add(part.len()) };
            }
        };
        // SAFETY: `write` initialises `len` bytes, because `len` is the length of all parts
        // together.
        unsafe { Self::build(len, write) }
    }

    /// Returns the hash of the string's bytes. It is computed once and then stored in the header.
    pub fn hash(&self) -> u64 {
        let hash = &self.head().hash;
        if hash.get() == 0 {
            // The hash function is FNV-1a.
            let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            hash.set(self.bytes().fold(0xcbf2_9ce4_8422_2325, step).max(1));
        }
        hash.get()
    }
}

impl<L: Layers> Instance<L> {
    /// Returns another pointer to the value in `slot`.
    ///
    /// # Panics
    ///
    /// Panics if the instance has no such slot.
    #[inline]
    pub fn get(&self, slot: usize) -> Value<L> {
        // SAFETY: the items are live (invariant of `head`), and an instance never changes after its
        // creation.
        let slots = unsafe { self.items().as_ref() };
        slots[slot].clone()
    }
}

impl<L: Layers> Deref for Tuple<L> {
    type Target = [Value<L>];

    #[inline]
    fn deref(&self) -> &[Value<L>] {
        // SAFETY: the items are live (invariant of `head`), and a tuple never changes after its
        // creation.
        unsafe { self.items().as_ref() }
    }
}

impl<L: Layers> Deref for Text<L> {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        // SAFETY: the items are live (invariant of `head`), and a string never changes after its
        // creation.
        let bytes = unsafe { self.items().as_ref() };
        // SAFETY: `concat` wrote a sequence of complete strings, so the bytes are valid UTF-8.
        unsafe { str::from_utf8_unchecked(bytes) }
    }
}

impl<T, L: Layers, const TUPLE: bool> Clone for Run<T, L, TUPLE> {
    #[inline]
    fn clone(&self) -> Self {
        let count = &self.head().count;
        // INVARIANT: the count stays the number of pointers to the run, because this function
        // returns one more. The count cannot overflow: this program never forgets a pointer, and
        // the memory has no room for so many pointers.
        count.set(count.get() + 1);
        Self { head: self.head, shares: PhantomData }
    }
}

impl<T, L: Layers, const TUPLE: bool> Drop for Run<T, L, TUPLE> {
    #[inline]
    fn drop(&mut self) {
        let Head { count, len, .. } = self.head();
        // INVARIANT: the count stays the number of pointers to the run, because `self` is dropped.
        count.set(count.get() - 1);
        if count.get() > 0 {
            return;
        }
        let len = *len;
        // SAFETY: this was the last pointer, so nothing else uses the items.
        unsafe { self.items().drop_in_place() };
        if TUPLE && L::CACHED {
            // SAFETY: the storage came from the cache with this length (invariant of `head`), and
            // contains no live item.
            unsafe { L::store().tuples.put(self.head, len) }
        } else {
            // SAFETY: the storage came from the layers below (invariant of `head`), and is not used
            // again.
            unsafe { L::store().below.free(Some(self.head.cast())) }
        }
    }
}

impl<T, L: Layers, const TUPLE: bool> fmt::Debug for Run<T, L, TUPLE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of {} items", self.head().len)
    }
}
