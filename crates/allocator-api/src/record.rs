//! How a vtable is shown to other threads: an immutable record behind one pointer.
//!
//! ```text
//!   Slot                    Records: forever, newest first
//!   ┌─────────┐
//!   │ initial │             ┌────────┐   ┌────────┐   ┌────────┐
//!   │ record ─┼────────────►│ vtable │   │ vtable │   │ vtable │
//!   └─────────┘             │ next ──┼──►│ next ──┼──►│ next   │
//!    null: initial          └────────┘   └────────┘   └────────┘
//! ```
//!
//! 1. A record never changes and never goes while its [`Records`] live. So a reader loads one
//!    pointer (Acquire) and has a whole vtable; nobody waits, and nothing is reclaimed.
//! 2. No two records have the same vtable. So setting and restoring in a loop takes no memory
//!    but for the first round.

use core::{ptr, ptr::NonNull};

use raw_mem::MemAlloc;
use sync::{
    UnsafeCell,
    atomic::{
        AtomicPtr,
        Ordering::{self, Acquire, Release},
    },
};

use crate::Foreign;

/// A vtable for other threads to find.
#[derive(Debug)]
pub(crate) struct Record {
    /// # Invariant
    ///
    /// Never written again: it is a cell only for a model to see who reads it, and when.
    vtable: UnsafeCell<Foreign>,
    next: Option<NonNull<Record>>,
}

impl Record {
    #[inline]
    fn vtable(&self) -> Foreign {
        // SAFETY: `vtable`'s invariant.
        self.vtable.with(|vtable| unsafe { *vtable })
    }
}

/// Every record of a registry, in memory of `A`.
#[derive(Debug)]
pub(crate) struct Records<A: MemAlloc> {
    /// # Invariant
    ///
    /// A chain of records, each in a block of `memory`.
    newest: Option<NonNull<Record>>,
    memory: A,
}

// SAFETY: records are immutable, and their memory belongs to no thread.
unsafe impl<A: MemAlloc + Send> Send for Records<A> {}

impl<A: MemAlloc> Records<A> {
    pub(crate) const fn new(memory: A) -> Self {
        Self { newest: None, memory }
    }

    /// The record of `vtable`, made if there is none. `None` when there is no memory for it.
    pub(crate) fn intern(&mut self, vtable: &Foreign) -> Option<NonNull<Record>> {
        if let Some((at, _)) = self.iter().find(|(_, record)| record.vtable().is(vtable)) {
            return Some(at);
        }
        let block = self.memory.malloc(size_of::<Record>())?.cast::<Record>();
        let record = Record { vtable: UnsafeCell::new(*vtable), next: self.newest };
        // SAFETY: the block has a record's size, is aligned for any type, and is ours alone.
        unsafe { block.write(record) };
        // INVARIANT: the record before it is the rest of the chain.
        self.newest = Some(block);
        Some(block)
    }

    fn iter(&self) -> impl Iterator<Item = (NonNull<Record>, &Record)> {
        core::iter::successors(self.newest, |at| {
            // SAFETY: `newest`'s invariant.
            unsafe { at.as_ref() }.next
        })
        // SAFETY: as above; the chain is borrowed as long as the record.
        .map(|at| (at, unsafe { at.as_ref() }))
    }
}

impl<A: MemAlloc> Drop for Records<A> {
    fn drop(&mut self) {
        let mut next = self.newest.take();
        while let Some(at) = next {
            // SAFETY: `newest`'s invariant; the record is read before its block goes, and whoever
            // had a pointer to it borrowed these records.
            unsafe {
                next = at.as_ref().next;
                self.memory.free(Some(at.cast()));
            }
        }
    }
}

/// The vtable in force for one domain.
#[derive(Debug)]
pub(crate) struct Slot {
    initial: Foreign,
    /// # Invariant
    ///
    /// Null, for `initial`, or a record that lives as long as this slot.
    record: AtomicPtr<Record>,
}

impl Slot {
    sync::const_unless_model! {
        pub(crate) fn new(initial: Foreign) -> Self {
            Self { initial, record: AtomicPtr::new(ptr::null_mut()) }
        }
    }

    /// The vtable in force.
    #[inline]
    pub(crate) fn read(&self) -> Foreign {
        // Acquire: the record's words must be seen with its address (the model
        // `a_reader_sees_a_whole_vtable_old_or_new`).
        self.read_with(Acquire)
    }

    #[inline]
    fn read_with(&self, order: Ordering) -> Foreign {
        let Some(record) = NonNull::new(self.record.load(order)) else { return self.initial };
        // SAFETY: `record`'s invariant.
        unsafe { record.as_ref() }.vtable()
    }

    /// Puts the vtable of `record` in force; without one, the initial vtable.
    ///
    /// # Safety
    ///
    /// `record` lives as long as the slot.
    pub(crate) unsafe fn publish(&self, record: Option<NonNull<Record>>) {
        // Release: with the record's address go its words.
        self.publish_with(Release, record);
    }

    fn publish_with(&self, order: Ordering, record: Option<NonNull<Record>>) {
        // INVARIANT: the promise of `publish`.
        self.record.store(record.map_or(ptr::null_mut(), NonNull::as_ptr), order);
    }

    /// The vtable that was in force when the slot was made.
    pub(crate) fn initial(&self) -> &Foreign {
        &self.initial
    }
}

#[cfg(test)]
mod tests {
    use core::ffi::c_void;

    use raw_mem::Malloc;
    use sync::{Arc, atomic::Ordering::Relaxed, thread};

    use super::*;
    use crate::MemAllocator;

    fn vtable(ctx: usize) -> Foreign {
        let ctx = ptr::without_provenance_mut::<c_void>(ctx);
        // SAFETY: these tests compare vtables and call none.
        unsafe { Foreign::new(MemAllocator { ctx, ..MemAllocator::of(&Malloc) }) }
    }

    /// A slot, and the records that live as long as it does.
    struct Published {
        slot: Slot,
        records: sync::Mutex<Records<Malloc>>,
    }

    fn published() -> Arc<Published> {
        let records = sync::Mutex::new(Records::new(Malloc));
        Arc::new(Published { slot: Slot::new(vtable(1)), records })
    }

    /// One thread sets a vtable while another one reads it, in the orders given.
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
    fn a_record_is_seen_whole_or_not_at_all() {
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
        fn a_vtable_has_one_record_however_often_it_is_set() {
            let mut records = Records::new(Malloc);
            let made = [1, 2, 3].map(|ctx| records.intern(&vtable(ctx)).unwrap());
            let again = [1, 2, 3].map(|ctx| records.intern(&vtable(ctx)).unwrap());
            assert_eq!(made, again);
            assert_eq!(records.iter().count(), 3);
        }

        #[test]
        fn without_memory_there_is_no_record() {
            assert!(Records::new(raw_mem::NoAlloc).intern(&vtable(1)).is_none());
        }
    }
}
