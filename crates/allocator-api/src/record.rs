//! The publication of vtables to other threads. Each vtable is stored in an immutable record. It
//! becomes visible to all threads when a pointer to its record is stored in a slot.
//!
//! ```text
//!   Slot                    Records, newest first
//!   ┌─────────┐
//!   │ initial │             ┌────────┐   ┌────────┐   ┌────────┐
//!   │ record ─┼────────────►│ vtable │   │ vtable │   │ vtable │
//!   └─────────┘             │ next ──┼──►│ next ──┼──►│ next   │
//!    null: initial          └────────┘   └────────┘   └────────┘
//! ```
//!
//! 1. A record never changes, and lives as long as the [`Records`] that it belongs to. A reader
//!    therefore gets a complete vtable by loading one pointer with Acquire. Readers need no lock,
//!    and no record is freed while a reader may use it.
//! 2. No two records have the same vtable. If a vtable is set again, its existing record is reused.
//!    A program that sets and restores the same vtables in a loop therefore allocates records only
//!    in the first round.

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

/// A vtable that other threads can read.
#[derive(Debug)]
pub(crate) struct Record {
    /// # Invariant
    ///
    /// The vtable is never written after the record was created. The field is a cell only so that a
    /// model checker can observe each access.
    vtable: UnsafeCell<CAllocator>,
    next: Option<NonNull<Record>>,
}

impl Record {
    #[inline]
    fn vtable(&self) -> CAllocator {
        // SAFETY: nobody writes the vtable (its invariant).
        self.vtable.with(|vtable| unsafe { *vtable })
    }
}

/// All records of a `DomainTable`. Each record is allocated from `memory`.
#[derive(Debug)]
pub(crate) struct Records<A: MemAlloc> {
    /// # Invariant
    ///
    /// `newest` is the first record of a linked list. Each record of the list is in a block of
    /// `memory`.
    newest: Option<NonNull<Record>>,
    memory: A,
}

// SAFETY: no thread writes to an existing record. The records are in blocks of `memory`, which is
// `Send`, so another thread may free them.
unsafe impl<A: MemAlloc + Send> Send for Records<A> {}

impl<A: MemAlloc> Records<A> {
    pub(crate) const fn new(memory: A) -> Self {
        Self { newest: None, memory }
    }

    /// Returns the record of `vtable`. Creates one if this vtable has no record yet. Returns `None`
    /// if a new record cannot be allocated.
    pub(crate) fn intern(&mut self, vtable: &CAllocator) -> Option<NonNull<Record>> {
        if let Some((at, _)) = self.iter().find(|(_, record)| record.vtable().is(vtable)) {
            return Some(at);
        }
        let block = self.memory.malloc(size_of::<Record>())?.cast::<Record>();
        let record = Record { vtable: UnsafeCell::new(*vtable), next: self.newest };
        // SAFETY: the block is new and has the size of a record. Every block of a `MemAlloc` is
        // aligned at least to a word, which is sufficient for a record.
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
        // SAFETY: `at` is a record of the list. The returned reference borrows the list, so the
        // record lives longer than the reference.
        .map(|at| (at, unsafe { at.as_ref() }))
    }
}

impl<A: MemAlloc> Drop for Records<A> {
    fn drop(&mut self) {
        let mut next = self.newest.take();
        while let Some(at) = next {
            // SAFETY: `at` is a record of the list (invariant of `newest`).
            next = unsafe { at.as_ref() }.next;
            // SAFETY: the block came from `memory`. Every reference to the record borrows `self`,
            // so no such reference exists any more.
            unsafe { self.memory.free(Some(at.cast())) };
        }
    }
}

/// The vtable in force for one domain.
#[derive(Debug)]
pub(crate) struct Slot {
    initial: CAllocator,
    /// # Invariant
    ///
    /// `record` is either null or points to a record that lives as long as this slot. If `record`
    /// is null, the vtable in force is `initial`.
    record: AtomicPtr<Record>,
}

impl Slot {
    sync::const_unless_model! {
        pub(crate) fn new(initial: CAllocator) -> Self {
            Self { initial, record: AtomicPtr::new(ptr::null_mut()) }
        }
    }

    /// Returns the vtable in force.
    #[inline]
    pub(crate) fn read(&self) -> CAllocator {
        // Acquire makes the contents of the record visible along with its address. The model
        // `a_record_is_visible_with_its_contents` tests this.
        self.read_with(Acquire)
    }

    #[inline]
    fn read_with(&self, order: Ordering) -> CAllocator {
        let Some(record) = NonNull::new(self.record.load(order)) else { return self.initial };
        // SAFETY: the record lives as long as the slot (invariant of `record`).
        unsafe { record.as_ref() }.vtable()
    }

    /// Makes the vtable of `record` the one in force. With `None`, restores the initial vtable.
    ///
    /// # Safety
    ///
    /// - `record` must live as long as the slot.
    pub(crate) unsafe fn publish(&self, record: Option<NonNull<Record>>) {
        // Release makes the contents of the record visible to a thread that loads its address with
        // Acquire.
        self.publish_with(Release, record);
    }

    fn publish_with(&self, order: Ordering, record: Option<NonNull<Record>>) {
        // INVARIANT: the record lives as long as the slot (contract of `publish`).
        self.record.store(record.map_or(ptr::null_mut(), NonNull::as_ptr), order);
    }

    /// Returns the vtable that the slot was created with.
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

    /// A slot, and the records that it may point to. A slot requires its records to live as long as
    /// itself, so this struct owns both.
    struct Published {
        slot: Slot,
        records: sync::Mutex<Records<Malloc>>,
    }

    fn published() -> Arc<Published> {
        let records = sync::Mutex::new(Records::new(Malloc));
        Arc::new(Published { slot: Slot::new(vtable(1)), records })
    }

    /// One thread sets a vtable with the ordering `store`, while another thread reads it with the
    /// ordering `load`.
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
