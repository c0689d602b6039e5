//! Objects whose length is fixed when they are made: tuples, and instances with slots.

use core::{cell::Cell, fmt, marker::PhantomData, ops::Deref, ptr::NonNull};

use object_cache::KeyedFreeList;
use raw_mem::MemAlloc;

use crate::{Layers, Value};

/// What stands before the items.
#[derive(Debug)]
pub(crate) struct RowHead {
    count: Cell<usize>,
    len: usize,
}

type Tuples<L> = KeyedFreeList<RowHead, Value<L>, <L as Layers>::Below, 20>;

/// A counted run of values in one block. Tuples come from the cache of their length; instances
/// come from below, as CPython's do. A tuple dereferences to its values; an instance's are copied
/// out and in, since they change.
pub struct Row<L: Layers, const TUPLE: bool> {
    /// # Invariant
    ///
    /// A live head with live items, in storage of the tuples' cache if `TUPLE` and caches are on,
    /// else in a block from below. Its count is the number of rows that point at it.
    head: NonNull<RowHead>,
    shares: PhantomData<Value<L>>,
}

/// A tuple.
pub type Tuple<L> = Row<L, true>;
/// An instance of a class with slots.
pub type Instance<L> = Row<L, false>;

impl<L: Layers, const TUPLE: bool> Row<L, TUPLE> {
    /// A row of these values.
    ///
    /// # Panics
    ///
    /// Panics when there is no memory.
    pub fn new<const N: usize>(values: [Value<L>; N]) -> Self {
        let storage = if TUPLE && L::CACHED {
            L::store().tuples.take(N)
        } else {
            let bytes = size_of::<RowHead>() + N * size_of::<Value<L>>();
            L::store().below.malloc(bytes).map(NonNull::cast)
        };
        let head: NonNull<RowHead> = storage.expect("memory for a row");
        // SAFETY: the storage has room for a head, and is ours.
        unsafe { head.write(RowHead { count: Cell::new(1), len: N }) };
        // SAFETY: the storage has room for `N` items behind the head, and is ours.
        unsafe { Tuples::<L>::items(head).cast().write(values) };
        // INVARIANT: head and items were written.
        Self { head, shares: PhantomData }
    }

    #[inline]
    fn head(&self) -> &RowHead {
        // SAFETY: `head`'s invariant.
        unsafe { self.head.as_ref() }
    }

    fn items(&self) -> NonNull<[Value<L>]> {
        // SAFETY: the layout is the tuples', wherever the storage came from.
        let first = unsafe { Tuples::<L>::items(self.head) };
        NonNull::slice_from_raw_parts(first, self.head().len)
    }

    /// Whether both point at the same object.
    pub fn is(&self, other: &Self) -> bool {
        self.head == other.head
    }

    /// # Safety
    ///
    /// This was the last row that points at the object, and it is not used again.
    unsafe fn end(&self) {
        let len = self.head().len;
        // SAFETY: `head`'s invariant; the caller says that nobody else uses the items.
        unsafe { self.items().drop_in_place() };
        if TUPLE && L::CACHED {
            // SAFETY: `head`'s invariant; no item is live any more.
            unsafe { L::store().tuples.put(self.head, len) }
        } else {
            // SAFETY: as above.
            unsafe { L::store().below.free(Some(self.head.cast())) }
        }
    }
}

impl<L: Layers> Instance<L> {
    /// The value of a slot, as another pointer to it.
    ///
    /// # Panics
    ///
    /// Panics when there is no such slot.
    #[inline]
    pub fn get(&self, slot: usize) -> Value<L> {
        // SAFETY: `head`'s invariant. The reference ends with the next line, and cloning a
        // value counts and does nothing else.
        let items = unsafe { self.items().as_ref() };
        items[slot].clone()
    }

    /// Sets a slot to `value`.
    ///
    /// # Panics
    ///
    /// Panics when there is no such slot.
    #[inline]
    pub fn set(&self, slot: usize, value: Value<L>) {
        let len = self.head().len;
        assert!(slot < len, "slot {slot} of {len}");
        // SAFETY: the slot is live, and nobody has a reference to it: `get` keeps none. The old
        // value is dropped when it is no longer in the slot.
        drop(unsafe { self.items().cast::<Value<L>>().add(slot).replace(value) });
    }
}

impl<L: Layers> Deref for Tuple<L> {
    type Target = [Value<L>];

    #[inline]
    fn deref(&self) -> &[Value<L>] {
        // SAFETY: `head`'s invariant, and a tuple's items never change.
        unsafe { self.items().as_ref() }
    }
}

impl<L: Layers, const TUPLE: bool> Clone for Row<L, TUPLE> {
    #[inline]
    fn clone(&self) -> Self {
        let count = &self.head().count;
        // INVARIANT: one row more. So many that the count overflows do not fit into memory, and
        // this program forgets none.
        count.set(count.get() + 1);
        Self { head: self.head, shares: PhantomData }
    }
}

impl<L: Layers, const TUPLE: bool> Drop for Row<L, TUPLE> {
    #[inline]
    fn drop(&mut self) {
        let count = &self.head().count;
        // INVARIANT: one row less.
        count.set(count.get() - 1);
        if count.get() == 0 {
            // SAFETY: this was the last one.
            unsafe { self.end() }
        }
    }
}

impl<L: Layers, const TUPLE: bool> fmt::Debug for Row<L, TUPLE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a row of {}", self.head().len)
    }
}
