//! The current allocator of each domain, which can be replaced while other threads allocate.
//!
//! An allocator consists of C functions and a context pointer, which each function receives as an
//! argument. A thread that uses a [`DomainTable`] loads a function and its context in one atomic
//! step, so both always belong to the same allocator. CPython loads them separately. If another
//! thread replaces the allocator between these two loads, CPython calls a function of one allocator
//! with the context of another.

use core::ptr::NonNull;

use raw_mem::{Malloc, MemAlloc};
use sync::Mutex;

use crate::{
    c_allocator::CAllocator,
    domain::Domain,
    record::{Records, Slot},
};

/// The error of a failed [`DomainTable::set`]. The previous allocator is still used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetError {
    /// The record that stores the vtable could not be allocated.
    #[error("cannot set the allocator of the {domain} domain: out of memory for its record")]
    OutOfMemory {
        /// The domain whose allocator was to be set.
        domain: Domain,
    },
}

/// The allocators of the three domains. CPython: `PyMem_GetAllocator`, `PyMem_SetAllocator`.
///
/// The first time an allocator is set, the table allocates a record for it from `A`.
#[derive(Debug)]
pub struct DomainTable<A: MemAlloc = Malloc> {
    slots: [Slot; 3],
    records: Mutex<Records<A>>,
}

impl DomainTable {
    sync::const_unless_model! {
        /// Creates a table with these allocators for the domains raw, mem and obj.
        pub fn new(initial: [CAllocator; 3]) -> Self {
            Self::with_memory(initial, Malloc)
        }
    }
}

impl<A: MemAlloc> DomainTable<A> {
    sync::const_unless_model! {
        /// Creates a table, as [`DomainTable::new`] does, that allocates from `memory`.
        pub fn with_memory(initial: [CAllocator; 3], memory: A) -> Self {
            let [raw, mem, obj] = initial;
            Self {
                slots: [Slot::new(raw), Slot::new(mem), Slot::new(obj)],
                records: Mutex::new(Records::new(memory)),
            }
        }
    }

    /// Returns the current allocator of `domain`.
    #[inline]
    pub fn get(&self, domain: Domain) -> CAllocator {
        self.slots[domain.index()].read()
    }

    /// Replaces the allocator of `domain`. Calls that have already begun finish in the previous
    /// one.
    ///
    /// Takes O(n) time, where n is the number of different allocators ever set.
    ///
    /// # Errors
    ///
    /// Returns [`SetError`] and changes nothing if the record of the allocator cannot be allocated.
    ///
    /// # Safety
    ///
    /// - `allocator` must be able to free and reallocate every live block of `domain`, including
    ///   the blocks that other threads allocate during this call.
    /// - `allocator` must meet the requirements of [`CAllocator::new`] for as long as this
    ///   `DomainTable` is in use, even after a later call has replaced `allocator`. Other threads
    ///   may then still be calling its functions.
    pub unsafe fn set(&self, domain: Domain, allocator: CAllocator) -> Result<(), SetError> {
        let slot = &self.slots[domain.index()];
        let mut records = sync::lock(&self.records);
        let record = if allocator.is(slot.initial()) {
            None
        } else {
            Some(records.intern(&allocator).ok_or(SetError::OutOfMemory { domain })?)
        };
        // We publish under the lock, so concurrent calls take effect in the order in which they
        // lock.
        // SAFETY: the records live as long as the table, and the slot is a part of the table.
        unsafe { slot.publish(record) };
        Ok(())
    }

    /// Returns an allocator that forwards each call to the current allocator of `domain`.
    #[inline]
    pub fn allocator(&self, domain: Domain) -> DomainAllocator<'_> {
        DomainAllocator(&self.slots[domain.index()])
    }
}

/// An allocator that forwards each call to the current allocator of one domain.
///
/// CPython: `PyMem_RawMalloc`, `PyMem_Malloc`, `PyObject_Malloc` and their siblings.
#[derive(Clone, Copy, Debug)]
pub struct DomainAllocator<'t>(&'t Slot);

// SAFETY: the current allocator accepts every live block (contract of `DomainTable::set`).
unsafe impl MemAlloc for DomainAllocator<'_> {
    #[inline]
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        self.0.read().malloc(size)
    }

    #[inline]
    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        self.0.read().calloc(count, size)
    }

    #[inline]
    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: the current allocator takes null and live blocks (contracts of `realloc`, `set`).
        unsafe { self.0.read().realloc(ptr, size) }
    }

    #[inline]
    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: the current allocator takes null and live blocks (contracts of `free`, `set`).
        unsafe { self.0.read().free(ptr) }
    }
}

#[cfg(test)]
mod tests;
