use raw_mem::NoAlloc;
use sync::{Arc, thread};

use super::*;

static MALLOC: CAllocator = CAllocator::of(&Malloc);
static ONE: CAllocator = CAllocator::of(&NoAlloc);
static OTHER: CAllocator = CAllocator::of(&&NoAlloc);

#[test]
fn a_reader_sees_the_old_or_the_new_vtable_and_no_mixture() {
    sync::model(|| {
        let setter = Arc::new(DomainTable::new([MALLOC; 3]));
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
fn after_two_concurrent_sets_one_of_the_two_vtables_is_in_force() {
    sync::model(|| {
        let one = Arc::new(DomainTable::new([MALLOC; 3]));
        let other = Arc::clone(&one);
        // SAFETY: the domain has no block.
        let setting = thread::spawn(move || unsafe { other.set(Domain::Mem, OTHER) }.unwrap());
        // SAFETY: the domain has no block.
        unsafe { one.set(Domain::Mem, ONE) }.unwrap();
        setting.join().unwrap();
        let last = one.get(Domain::Mem);
        assert!(last.is(&ONE) || last.is(&OTHER));
    });
}

/// Stores the function and the context separately, so a reader can see a mixture of two vtables.
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
    use crate::hooks::Counting;

    #[test]
    fn a_vtable_serves_the_domain_that_it_was_set_for_and_no_other() {
        static HOOK: Counting<Malloc> = Counting::new(Malloc, 512);
        let table = DomainTable::new([MALLOC; 3]);
        // SAFETY: the hook passes every request to malloc.
        unsafe { table.set(Domain::Mem, CAllocator::of(&HOOK)) }.unwrap();
        for domain in Domain::ALL {
            let block = table.allocator(domain).malloc(8);
            // SAFETY: the block is live and not used again.
            unsafe { table.allocator(domain).free(block) };
        }
        assert_eq!(HOOK.counts().small.requests, 1);
    }

    #[test]
    fn a_hook_can_be_installed_and_removed_while_blocks_are_live() {
        static HOOK: OnceLock<Counting<CAllocator>> = OnceLock::new();
        let table = DomainTable::new([MALLOC; 3]);
        let allocator = table.allocator(Domain::Obj);
        let older = allocator.malloc(10);
        let before = table.get(Domain::Obj);
        let hook = HOOK.get_or_init(|| Counting::new(before, 512));
        // SAFETY: the hook passes every request to the previous allocator.
        unsafe { table.set(Domain::Obj, CAllocator::of(hook)) }.unwrap();
        // SAFETY: `older` is live and not used again.
        let older = unsafe { allocator.realloc(older, 20) };
        let newer = allocator.calloc(3, 4);
        // SAFETY: every block of the hook is a block of the allocator below it.
        unsafe { table.set(Domain::Obj, before) }.unwrap();
        for block in [older, newer] {
            // SAFETY: the block is live and not used again.
            unsafe { allocator.free(block) };
        }
        assert_eq!((hook.counts().small.requests, hook.counts().small.bytes), (2, 32));
        assert!(table.get(Domain::Obj).is(&before));
    }

    #[test]
    fn requests_are_checked_before_the_vtable_is_called() {
        static HOOK: Counting<Malloc> = Counting::new(Malloc, 512);
        let table = DomainTable::new([MALLOC; 3]);
        // SAFETY: the hook passes every request to malloc.
        unsafe { table.set(Domain::Raw, CAllocator::of(&HOOK)) }.unwrap();
        let allocator = table.allocator(Domain::Raw);
        assert_eq!(allocator.malloc(MAX_REQUEST + 1), None);
        assert_eq!(allocator.calloc(2, MAX_REQUEST), None);
        // SAFETY: null is allowed.
        assert_eq!(unsafe { allocator.realloc(None, MAX_REQUEST + 1) }, None);
        assert_eq!(HOOK.counts().small.requests + HOOK.counts().large.requests, 0);
        let zero = allocator.malloc(0);
        assert!(zero.is_some());
        assert_eq!(HOOK.counts().small.requests, 1);
        // SAFETY: null is allowed. The other block is live and not used again.
        unsafe {
            allocator.free(None);
            allocator.free(zero);
        }
    }

    /// Regression test (mutant 21).
    #[test]
    fn a_dropped_table_frees_its_records() {
        let memory = FailingAlloc::<Malloc>::default();
        let records = memory.live();
        let table = DomainTable::with_memory([MALLOC; 3], memory);
        for vtable in [ONE, OTHER, ONE] {
            // SAFETY: the domain has no block.
            unsafe { table.set(Domain::Obj, vtable) }.unwrap();
        }
        assert_eq!(records.count(), 2);
        drop(table);
        assert_eq!(records.count(), 0);
    }

    #[test]
    fn without_memory_for_a_record_the_vtable_in_force_does_not_change() {
        let table = DomainTable::with_memory([MALLOC; 3], NoAlloc);
        // SAFETY: the domain has no block.
        let outcome = unsafe { table.set(Domain::Obj, ONE) };
        assert_eq!(outcome, Err(SetError::OutOfMemory { domain: Domain::Obj }));
        assert!(table.get(Domain::Obj).is(&MALLOC));
    }

    #[test]
    fn a_table_may_be_shared_between_threads() {
        const fn shared<T: Send + Sync>() {}
        const { shared::<DomainTable>() };
    }
}
