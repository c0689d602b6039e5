//! Publishes vtables to other threads, which read them without a lock.
//!
//! A record holds one vtable, which is a set of allocator functions and their context. Records
//! never change, so threads can read them without a lock. A [`DomainTable`](crate::DomainTable)
//! owns a list of records, and frees them when it is dropped. If a program sets an allocator that
//! it has set before, the table reuses the existing record.

use core::{ptr, ptr::NonNull};

use raw_mem::MemAlloc;
use sync::{
    UnsafeCell,
    atomic::{
        AtomicPtr,
        Ordering::{self, Acquire, Release},
    },
};

use crate::c_allocator::CAllocator;

#[derive(Debug)]
pub(crate) struct Record {
    /// # Invariant
    ///
    /// The vtable never changes. The cell is needed only for loom, which tracks accesses.
    vtable: UnsafeCell<CAllocator>,
    next: Option<NonNull<Record>>,
}

impl Record {
    #[inline]
    fn vtable(&self) -> CAllocator {
        // SAFETY: nothing writes to the vtable (its invariant).
        self.vtable.with(|vtable| unsafe { *vtable })
    }
}

#[derive(Debug)]
pub(crate) struct Records<A: MemAlloc> {
    /// # Invariant
    ///
    /// The head of a linked list of records, each in a block of `memory`.
    newest: Option<NonNull<Record>>,
    memory: A,
}

// SAFETY: records are never written, and `memory` is `Send`, so any thread may free them.
unsafe impl<A: MemAlloc + Send> Send for Records<A> {}

impl<A: MemAlloc> Records<A> {
    pub(crate) const fn new(memory: A) -> Self {
        Self { newest: None, memory }
    }

    /// Returns the record of `vtable`, and creates it if needed. Returns `None` if memory is
    /// exhausted.
    pub(crate) fn intern(&mut self, vtable: &CAllocator) -> Option<NonNull<Record>> {
        if let Some((at, _)) = self.iter().find(|(_, record)| record.vtable().is(vtable)) {
            return Some(at);
        }
        let block = self.memory.malloc(size_of::<Record>())?.cast::<Record>();
        let record = Record { vtable: UnsafeCell::new(*vtable), next: self.newest };
        // SAFETY: the block is new, large enough, and aligned to a word (contract of `MemAlloc`).
        unsafe { block.write(record) };
        // INVARIANT: the new record's `next` is the list so far.
        self.newest = Some(block);
        Some(block)
    }

    fn iter(&self) -> impl Iterator<Item = (NonNull<Record>, &Record)> {
        core::iter::successors(self.newest, |at| {
            // SAFETY: `at` is a record of the list (invariant of `newest`).
            unsafe { at.as_ref() }.next
        })
        // SAFETY: `at` is a record of the list, which the returned reference borrows.
        .map(|at| (at, unsafe { at.as_ref() }))
    }
}

impl<A: MemAlloc> Drop for Records<A> {
    fn drop(&mut self) {
        let mut next = self.newest.take();
        while let Some(at) = next {
            // SAFETY: `at` is a record of the list (invariant of `newest`).
            next = unsafe { at.as_ref() }.next;
            // SAFETY: the block came from `memory`. References to it borrow `self`, so none exists.
            unsafe { self.memory.free(Some(at.cast())) };
        }
    }
}

#[derive(Debug)]
pub(crate) struct Slot {
    initial: CAllocator,
    /// # Invariant
    ///
    /// Null for `initial`, or a pointer to a record that lives as long as this slot.
    record: AtomicPtr<Record>,
}

impl Slot {
    sync::const_unless_model! {
        pub(crate) fn new(initial: CAllocator) -> Self {
            Self { initial, record: AtomicPtr::new(ptr::null_mut()) }
        }
    }

    #[inline]
    pub(crate) fn read(&self) -> CAllocator {
        // Acquire pairs with the Release in `publish`, so the contents of the record are visible.
        self.read_with(Acquire)
    }

    #[inline]
    fn read_with(&self, order: Ordering) -> CAllocator {
        let Some(record) = NonNull::new(self.record.load(order)) else { return self.initial };
        // SAFETY: the record lives as long as the slot (invariant of `record`).
        unsafe { record.as_ref() }.vtable()
    }

    /// Makes readers use the vtable of `record`, or the initial vtable if `record` is `None`.
    ///
    /// # Safety
    ///
    /// - `record` must live as long as the slot.
    pub(crate) unsafe fn publish(&self, record: Option<NonNull<Record>>) {
        self.publish_with(Release, record);
    }

    fn publish_with(&self, order: Ordering, record: Option<NonNull<Record>>) {
        // INVARIANT: the record lives as long as the slot (contract of `publish`).
        self.record.store(record.map_or(ptr::null_mut(), NonNull::as_ptr), order);
    }

    pub(crate) fn initial(&self) -> &CAllocator {
        &self.initial
    }
}

#[cfg(test)]
mod tests {
    use core::ffi::c_void;

    use raw_mem::Malloc;
    use sync::{Arc, atomic::Ordering::Relaxed, thread};

    use super::*;
    use crate::vtable::VTable;

    fn vtable(ctx: usize) -> CAllocator {
        let ctx = ptr::without_provenance_mut::<c_void>(ctx);
        // SAFETY: the tests only compare the vtables and never call them.
        unsafe { CAllocator::new(VTable { ctx, ..VTable::of(&Malloc) }) }
    }

    /// Owns a slot and its records, because the records must live as long as the slot.
    struct Published {
        slot: Slot,
        records: sync::Mutex<Records<Malloc>>,
    }

    fn published() -> Arc<Published> {
        let records = sync::Mutex::new(Records::new(Malloc));
        Arc::new(Published { slot: Slot::new(vtable(1)), records })
    }

    fn set_while_another_reads(store: Ordering, load: Ordering) {
        let setter = published();
        let reader = Arc::clone(&setter);
        let reading = thread::spawn(move || reader.slot.read_with(load).vtable().ctx.addr());
        let record = sync::lock(&setter.records).intern(&vtable(2));
        setter.slot.publish_with(store, record);
        let seen = reading.join().unwrap();
        assert!([1, 2].contains(&seen));
    }

    #[test]
    fn a_record_is_visible_with_its_contents() {
        sync::model(|| set_while_another_reads(Release, Acquire));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_record_published_without_release_is_rejected() {
        sync::rejected(|| set_while_another_reads(Relaxed, Acquire));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_record_read_without_acquire_is_rejected() {
        sync::rejected(|| set_while_another_reads(Release, Relaxed));
    }

    #[cfg(not(loom))]
    mod alone {
        use super::*;

        #[test]
        fn a_vtable_that_is_set_repeatedly_has_one_record() {
            let mut records = Records::new(Malloc);
            let created = [1, 2, 3].map(|ctx| records.intern(&vtable(ctx)).unwrap());
            let again = [1, 2, 3].map(|ctx| records.intern(&vtable(ctx)).unwrap());
            assert_eq!(created, again);
            assert_eq!(records.iter().count(), 3);
        }

        #[test]
        fn without_memory_there_is_no_record() {
            assert!(Records::new(raw_mem::NoAlloc).intern(&vtable(1)).is_none());
        }
    }
}
