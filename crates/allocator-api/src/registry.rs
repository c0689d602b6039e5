//! Which allocator serves which domain.
//!
//! ```text
//!   entry(Obj).malloc(n) ──► the slot of obj ──► the vtable in force ──► malloc(ctx, n)
//!   set(Obj, vtable) ──────► a record of it, under a lock ──► the slot of obj
//! ```
//!
//! CPython: `PyMem_GetAllocator`, `PyMem_SetAllocator`. There a reader loads function and context
//! one after the other, and can get them from two vtables; here it cannot.

use core::ptr::NonNull;

use raw_mem::{Malloc, MemAlloc};
use sync::Mutex;

use crate::{
    Domain, Foreign,
    record::{Records, Slot},
};

/// Why an allocator could not be set. The one before it is still in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetError {
    /// There is no memory for the record of the vtable.
    #[error("no memory to remember the allocator of the {domain} domain")]
    OutOfMemory {
        /// The domain that was to be set.
        domain: Domain,
    },
}

/// The vtables of the three domains.
///
/// It can be a `static`, and asks for no memory before a vtable is set that it has not seen; its
/// memory comes from `A`.
#[derive(Debug)]
pub struct Registry<A: MemAlloc = Malloc> {
    slots: [Slot; 3],
    records: Mutex<Records<A>>,
}

impl Registry {
    sync::const_unless_model! {
        /// A registry with these vtables for raw, mem and obj.
        pub fn new(initial: [Foreign; 3]) -> Self {
            Self::with_memory(initial, Malloc)
        }
    }
}

impl<A: MemAlloc> Registry<A> {
    sync::const_unless_model! {
        /// A registry with these vtables for raw, mem and obj, which takes memory for its records
        /// from `memory`.
        pub fn with_memory(initial: [Foreign; 3], memory: A) -> Self {
            let [raw, mem, obj] = initial;
            Self {
                slots: [Slot::new(raw), Slot::new(mem), Slot::new(obj)],
                records: Mutex::new(Records::new(memory)),
            }
        }
    }

    /// The vtable of `domain`, whole, whatever other threads set meanwhile.
    #[inline]
    pub fn get(&self, domain: Domain) -> Foreign {
        self.slots[domain.index()].read()
    }

    /// Makes `vtable` serve `domain` from now on. A call that has begun ends on the vtable before
    /// it. O(vtables ever set).
    ///
    /// # Errors
    ///
    /// [`SetError`], and nothing has changed then.
    ///
    /// # Safety
    ///
    /// The functions of `vtable` can free and reallocate every live block of the domain; and what
    /// [`Foreign::new`] asks holds as long as the registry is in use.
    pub unsafe fn set(&self, domain: Domain, vtable: Foreign) -> Result<(), SetError> {
        let slot = &self.slots[domain.index()];
        let mut records = sync::lock(&self.records);
        let record = if vtable.is(slot.initial()) {
            None
        } else {
            Some(records.intern(&vtable).ok_or(SetError::OutOfMemory { domain })?)
        };
        // SAFETY: records live as long as the registry, and so does the slot. Still locked, so
        // that vtables come into force in the order in which they were set.
        unsafe { slot.publish(record) };
        Ok(())
    }

    /// The way in for requests of `domain`.
    #[inline]
    pub fn entry(&self, domain: Domain) -> Entry<'_> {
        Entry(&self.slots[domain.index()])
    }
}

/// A domain as an allocator: every call goes to the vtable that is in force at that moment.
///
/// It makes the checks that CPython makes before it calls a vtable: see [`Foreign`]. CPython:
/// `PyMem_RawMalloc`, `PyMem_Malloc`, `PyObject_Malloc` and their siblings.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'r>(&'r Slot);

// SAFETY: every promise is the vtable's.
unsafe impl MemAlloc for Entry<'_> {
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
        // SAFETY: the caller's promise; the vtable in force knows every live block of the domain.
        unsafe { self.0.read().realloc(ptr, size) }
    }

    #[inline]
    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: the caller's promise; the vtable in force knows every live block of the domain.
        unsafe { self.0.read().free(ptr) }
    }
}

#[cfg(test)]
mod tests {
    use raw_mem::NoAlloc;
    use sync::{Arc, thread};

    use super::*;

    static MALLOC: Foreign = Foreign::of(&Malloc);
    static ONE: Foreign = Foreign::of(&NoAlloc);
    static OTHER: Foreign = Foreign::of(&&NoAlloc);

    #[test]
    fn a_reader_sees_a_whole_vtable_old_or_new() {
        sync::model(|| {
            let setter = Arc::new(Registry::new([MALLOC; 3]));
            let reader = Arc::clone(&setter);
            let reading = thread::spawn(move || {
                for seen in [reader.get(Domain::Obj), reader.get(Domain::Obj)] {
                    assert!(seen.is(&MALLOC) || seen.is(&ONE));
                }
            });
            // SAFETY: the domain has no block.
            unsafe {
                setter.set(Domain::Obj, ONE).unwrap();
                setter.set(Domain::Obj, MALLOC).unwrap();
            }
            reading.join().unwrap();
        });
    }

    #[test]
    fn two_threads_that_set_leave_the_vtable_of_one_of_them() {
        sync::model(|| {
            let one = Arc::new(Registry::new([MALLOC; 3]));
            let other = Arc::clone(&one);
            // SAFETY: the domain has no block.
            let setting = thread::spawn(move || unsafe { other.set(Domain::Mem, OTHER) }.unwrap());
            // SAFETY: as above.
            unsafe { one.set(Domain::Mem, ONE) }.unwrap();
            setting.join().unwrap();
            let last = one.get(Domain::Mem);
            assert!(last.is(&ONE) || last.is(&OTHER));
        });
    }

    /// What CPython has: function and context are stored, and loaded, one after the other.
    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_vtable_stored_word_by_word_is_rejected() {
        use sync::atomic::{
            AtomicUsize,
            Ordering::{Acquire, Release},
        };
        sync::rejected(|| {
            let slot = Arc::new([AtomicUsize::new(1), AtomicUsize::new(1)]);
            let other = Arc::clone(&slot);
            let reading = thread::spawn(move || {
                let [function, context] = &*other;
                assert_eq!(function.load(Acquire), context.load(Acquire), "a torn vtable");
            });
            for word in &*slot {
                word.store(2, Release);
            }
            reading.join().unwrap();
        });
    }

    #[cfg(not(loom))]
    mod alone {
        use std::sync::OnceLock;

        use raw_mem::MAX_REQUEST;
        use testkit::failing::FailingAlloc;

        use super::*;
        use crate::hooks::Counted;

        #[test]
        fn a_domain_is_served_by_the_vtable_that_was_set_and_no_other_domain_is() {
            static HOOK: Counted<Malloc> = Counted::new(Malloc, 512);
            let registry = Registry::new([MALLOC; 3]);
            // SAFETY: the hook hands every block on to malloc.
            unsafe { registry.set(Domain::Mem, Foreign::of(&HOOK)) }.unwrap();
            for domain in Domain::ALL {
                let block = registry.entry(domain).malloc(8);
                // SAFETY: the block is live and not used again.
                unsafe { registry.entry(domain).free(block) };
            }
            assert_eq!(HOOK.counts().small.requests, 1);
        }

        #[test]
        fn a_hook_can_be_set_over_the_allocator_in_force_and_taken_away_while_blocks_live() {
            static HOOK: OnceLock<Counted<Foreign>> = OnceLock::new();
            let registry = Registry::new([MALLOC; 3]);
            let entry = registry.entry(Domain::Obj);
            let older = entry.malloc(10);
            let before = registry.get(Domain::Obj);
            let hook = HOOK.get_or_init(|| Counted::new(before, 512));
            // SAFETY: the hook hands every block on to the allocator before it.
            unsafe { registry.set(Domain::Obj, Foreign::of(hook)) }.unwrap();
            // SAFETY: `older` is live and replaced.
            let older = unsafe { entry.realloc(older, 20) };
            let newer = entry.calloc(3, 4);
            // SAFETY: every block of the hook is one of the allocator below it.
            unsafe { registry.set(Domain::Obj, before) }.unwrap();
            for block in [older, newer] {
                // SAFETY: the block is live and not used again.
                unsafe { entry.free(block) };
            }
            assert_eq!((hook.counts().small.requests, hook.counts().small.bytes), (2, 32));
            assert!(registry.get(Domain::Obj).is(&before));
        }

        #[test]
        fn requests_are_checked_before_the_vtable_sees_them() {
            static HOOK: Counted<Malloc> = Counted::new(Malloc, 512);
            let registry = Registry::new([MALLOC; 3]);
            // SAFETY: the hook hands every block on to malloc.
            unsafe { registry.set(Domain::Raw, Foreign::of(&HOOK)) }.unwrap();
            let entry = registry.entry(Domain::Raw);
            assert_eq!(entry.malloc(MAX_REQUEST + 1), None);
            assert_eq!(entry.calloc(2, MAX_REQUEST), None);
            // SAFETY: null is allowed.
            assert_eq!(unsafe { entry.realloc(None, MAX_REQUEST + 1) }, None);
            assert_eq!(HOOK.counts().small.requests + HOOK.counts().large.requests, 0);
            let zero = entry.malloc(0);
            assert!(zero.is_some());
            assert_eq!(HOOK.counts().small.requests, 1);
            // SAFETY: null, and a live block that is not used again.
            unsafe {
                entry.free(None);
                entry.free(zero);
            }
        }

        /// mutants 21: the records were leaked.
        #[test]
        fn a_registry_that_goes_frees_its_records() {
            let memory = FailingAlloc::<Malloc>::default();
            let records = memory.live();
            let registry = Registry::with_memory([MALLOC; 3], memory);
            for vtable in [ONE, OTHER, ONE] {
                // SAFETY: the domain has no block.
                unsafe { registry.set(Domain::Obj, vtable) }.unwrap();
            }
            assert_eq!(records.count(), 2);
            drop(registry);
            assert_eq!(records.count(), 0);
        }

        #[test]
        fn without_memory_for_a_record_the_vtable_in_force_stays() {
            let registry = Registry::with_memory([MALLOC; 3], NoAlloc);
            // SAFETY: the domain has no block.
            let outcome = unsafe { registry.set(Domain::Obj, ONE) };
            assert_eq!(outcome, Err(SetError::OutOfMemory { domain: Domain::Obj }));
            assert!(registry.get(Domain::Obj).is(&MALLOC));
        }

        #[test]
        fn a_registry_may_be_shared_between_threads() {
            const fn shared<T: Send + Sync>() {}
            const { shared::<Registry>() };
        }
    }
}
