//! A table of the allocators that are in force for each domain.
//!
//! ```text
//!   allocator(Obj).malloc(n) ──► the slot of obj ──► the vtable in force ──► malloc(ctx, n)
//!   set(Obj, vtable) ──────────► a record of it, made under a lock ──► the slot of obj
//! ```
//!
//! CPython: `PyMem_GetAllocator`, `PyMem_SetAllocator`. CPython loads the function and the context
//! of a vtable one after the other. If another thread sets a new vtable in between, CPython calls
//! the old function with the new context. That cannot happen with this table. A reader loads a
//! single pointer to an immutable vtable, so the function and the context always belong together.

use core::ptr::NonNull;

use raw_mem::{Malloc, MemAlloc};
use sync::Mutex;

use crate::{
    c_allocator::CAllocator,
    domain::Domain,
    record::{Records, Slot},
};

/// The error of a failed [`DomainTable::set`]. The previous allocator stays in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetError {
    /// The record of the vtable could not be allocated.
    #[error("cannot set the allocator of the {domain} domain: out of memory for its record")]
    OutOfMemory {
        /// The domain whose allocator was to be set.
        domain: Domain,
    },
}

/// The allocators of the three domains.
///
/// A table can be a `static`. When a vtable is set that the table has never stored before, the
/// table allocates a record for the vtable from `A`.
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
        /// Creates a table with these allocators for the domains raw, mem and obj. The table
        /// allocates its records from `memory`.
        pub fn with_memory(initial: [CAllocator; 3], memory: A) -> Self {
            let [raw, mem, obj] = initial;
            Self {
                slots: [Slot::new(raw), Slot::new(mem), Slot::new(obj)],
                records: Mutex::new(Records::new(memory)),
            }
        }
    }

    /// Returns the allocator that is in force for `domain` at the time of the call.
    #[inline]
    pub fn get(&self, domain: Domain) -> CAllocator {
        self.slots[domain.index()].read()
    }

    /// Makes `allocator` the allocator in force for `domain`. Calls that other threads have already
    /// begun continue in the previous allocator. Takes O(n) time, where n is the number of
    /// different vtables ever set.
    ///
    /// # Errors
    ///
    /// Returns [`SetError`] if a record of the vtable cannot be allocated. The table is unchanged
    /// in that case.
    ///
    /// # Safety
    ///
    /// - `allocator` must be able to free and to reallocate every live block of the domain.
    /// - The contract of [`CAllocator::new`] must hold for `allocator` as long as the table is in
    ///   use.
    pub unsafe fn set(&self, domain: Domain, allocator: CAllocator) -> Result<(), SetError> {
        let slot = &self.slots[domain.index()];
        let mut records = sync::lock(&self.records);
        let record = if allocator.is(slot.initial()) {
            None
        } else {
            Some(records.intern(&allocator).ok_or(SetError::OutOfMemory { domain })?)
        };
        // We publish the record while we still hold the lock. If several threads set allocators,
        // these allocators therefore come into force in the order in which the threads acquired the
        // lock.
        // SAFETY: the records live as long as the table, and the slot is a part of the table.
        unsafe { slot.publish(record) };
        Ok(())
    }

    /// Returns an allocator that forwards each call to the allocator in force for `domain`.
    #[inline]
    pub fn allocator(&self, domain: Domain) -> DomainAllocator<'_> {
        DomainAllocator(&self.slots[domain.index()])
    }
}

/// A domain of a [`DomainTable`], used as an allocator. Each call goes to the allocator that is in
/// force for the domain at the time of the call.
///
/// This allocator makes the same checks as [`CAllocator`]. CPython: `PyMem_RawMalloc`,
/// `PyMem_Malloc`, `PyObject_Malloc` and their siblings.
#[derive(Clone, Copy, Debug)]
pub struct DomainAllocator<'t>(&'t Slot);

// SAFETY: each call goes to an allocator that can free and reallocate every live block of the
// domain (contract of `DomainTable::set`).
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
        // SAFETY: `ptr` is null or a live block of the domain (contract of `realloc`). The
        // allocator in force can reallocate every such block (contract of `set`).
        unsafe { self.0.read().realloc(ptr, size) }
    }

    #[inline]
    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: `ptr` is null or a live block of the domain (contract of `free`). The allocator
        // in force can free every such block (contract of `set`).
        unsafe { self.0.read().free(ptr) }
    }
}

#[cfg(test)]
mod tests;
