//! Opening a heap: adopting an abandoned one, or creating a new one.

use std::iter;

use obmalloc::HeapTag;
use raw_mem::{MemAlloc, preserving_errno};
use sync::atomic::Ordering::Relaxed;

#[cfg(doc)]
use super::left_open::LeftOpen;
use super::{Heaps, ThreadHeap, owner::Owner};
use crate::{heap_stack::HeapStack, parts::Parts, shared_arenas::SharedArenas};

impl<P: Parts> Heaps<P> {
    /// Opens a heap that the caller owns. Adopts an abandoned heap or creates a new one.
    ///
    /// Returns `None` if the metadata allocator cannot provide suitably aligned memory for a new
    /// heap.
    ///
    /// The call takes constant time on average, even if there are many heaps. Abandoned heaps are
    /// reused, so the number of heaps is about the largest number of owners that have existed at
    /// the same time.
    ///
    /// The caller must not hold the guard of [`lock_source`](Self::lock_source), because the call
    /// can lock the source.
    pub fn open(&'static self) -> Option<Owner<P>> {
        self.adopt_shifted().or_else(|| self.adopt()).or_else(|| self.create())
    }

    /// Opens a heap for the thread whose number is `thread`.
    ///
    /// The function returns the first of these heaps that it can get:
    /// - an abandoned heap, unless its blocks begin as in CPython,
    /// - if a [search](LeftOpen) is due, a heap that an ended thread with the same number has left
    ///   open,
    /// - a new heap.
    ///
    /// A thread's number is an address in its thread-local memory, so a new thread can have the
    /// same number as a thread that has already ended. If the ended thread did not close its heap,
    /// the heap still carries this number, and the new thread can take the heap.
    ///
    /// The heap's blocks are naturally aligned: a 64-byte block is aligned to 64 bytes, and a
    /// 48-byte block to 16.
    ///
    /// # Safety
    ///
    /// Each heap whose [`ThreadHeap::thread`] is the given number must meet these requirements:
    ///
    /// - The thread that opened the heap has ended.
    /// - The thread did not end during a call into the heap.
    pub(crate) unsafe fn open_as(&'static self, thread: usize) -> Option<Owner<P>> {
        let adopted = self.adopt();
        // SAFETY: the contract is the same.
        let found = adopted.or_else(|| unsafe { self.find_left_open(thread) });
        found.or_else(|| self.create())
    }

    /// Puts a heap, which the caller has just abandoned, on the stack of abandoned heaps.
    pub(super) fn stack(&self, heap: &'static ThreadHeap<P>) {
        // Heaps whose blocks are shifted have their own stack. This heap may still get onto the
        // wrong stack, because another thread may adopt it and shift its blocks after we have read
        // `is_shifted`. A thread that later takes the heap from the wrong stack moves it to the
        // other.
        let is_shifted = heap.is_shifted.load(Relaxed);
        let stack = if is_shifted { &self.abandoned_shifted } else { &self.abandoned };
        stack.push(heap);
    }

    /// Puts every abandoned heap on its stack again.
    ///
    /// A forked child calls this function to repair the stacks. If another thread was changing a
    /// stack at the moment of the fork, the change is unfinished in the child, because that thread
    /// does not exist there.
    ///
    /// No other thread may use the heaps during the call.
    pub(crate) fn restack(&'static self) {
        self.abandoned.clear();
        self.abandoned_shifted.clear();
        for heap in self.list.iter() {
            heap.stacked.forget();
            if heap.inbox.is_abandoned() {
                self.stack(heap);
            }
        }
    }

    /// Adopts an abandoned heap whose blocks are naturally aligned.
    fn adopt(&'static self) -> Option<Owner<P>> {
        // Dropping a shifted heap puts it on the other stack.
        self.adopt_from(&self.abandoned).find(is_aligned)
    }

    /// Adopts an abandoned heap whose blocks begin as in CPython.
    fn adopt_shifted(&'static self) -> Option<Owner<P>> {
        self.adopt_from(&self.abandoned_shifted).next()
    }

    fn adopt_from(
        &'static self,
        stack: &'static HeapStack<ThreadHeap<P>>,
    ) -> impl Iterator<Item = Owner<P>> {
        // We use the lock of the source, because the program already holds it across a fork.
        let heaps = iter::from_fn(|| stack.pop(|| preserving_errno(|| self.shared.lock())));
        heaps.filter_map(Owner::adopt)
    }

    /// Takes a heap that was left open by a thread with the same number, if a search is due.
    ///
    /// The numbers of ended threads are reused, so several threads with the number `thread` may
    /// have left their heaps open. The caller gets one of these heaps, and the others become
    /// abandoned.
    ///
    /// If the search comes across an abandoned heap before it has found another heap, the function
    /// adopts the abandoned heap. Such a heap may be missing from the stack of abandoned heaps,
    /// because a thread first abandons its heap and only then puts it on the stack.
    ///
    /// # Safety
    ///
    /// - The requirements of [`open_as`](Self::open_as) must be met.
    unsafe fn find_left_open(&'static self, thread: usize) -> Option<Owner<P>> {
        if !self.left_open.begin_search() {
            return None;
        }
        let mut found = None;
        for heap in self.list.iter() {
            // Relaxed is enough. The number is an address in thread-local memory, and the C library
            // synchronises the reuse of that memory.
            if heap.thread.load(Relaxed) == thread {
                // A later owner must not inherit the number, or another thread could take its heap.
                heap.thread.store(0, Relaxed);
                self.left_open.note_found();
                // SAFETY: the owning thread has ended, but not during a call into the heap
                // (contract). The number was removed, so no thread takes the heap a second time.
                let owner = unsafe { Owner::new(heap) };
                found.get_or_insert(owner);
            } else if found.is_none() {
                found = Owner::adopt(heap).filter(is_aligned);
            }
        }
        found
    }

    /// Creates a heap that the caller owns. Fails like [`open`](Self::open).
    fn create(&'static self) -> Option<Owner<P>> {
        let lower = self.shared.lower();
        let block = lower.malloc(size_of::<ThreadHeap<P>>())?;
        let place = block.cast::<ThreadHeap<P>>();
        if !place.is_aligned() {
            // SAFETY: the block came from `lower` just now, and nothing else refers to it.
            unsafe { lower.free(Some(block)) };
            return None;
        }
        let tag = HeapTag(place.as_ptr().cast_const().cast());
        let heap = ThreadHeap::new(self, SharedArenas::of(&self.shared), lower.clone(), tag);
        // SAFETY: we own the block, which is large and aligned enough for a `ThreadHeap`.
        unsafe { place.write(heap) };
        // SAFETY: the heap was written just now, is never freed, and is only shared from now on.
        let heap: &'static ThreadHeap<P> = unsafe { place.as_ref() };
        self.list.add(heap);
        self.left_open.note_created();
        // SAFETY: a new inbox is marked as having an owner, so no other thread can adopt the heap.
        Some(unsafe { Owner::new(heap) })
    }
}

/// Returns true if the blocks of the heap are naturally aligned.
fn is_aligned<P: Parts>(owner: &Owner<P>) -> bool {
    // Only an owner sets the flag, so it cannot change while we own the heap.
    !owner.heap().is_shifted.load(Relaxed)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{mem, ptr};

    use raw_mem::{Malloc, MmapArenas};

    use super::*;
    use crate::{ThreadGeometry, heap_list::visits};

    type TestParts = (MmapArenas, Malloc, ThreadGeometry);
    type Family = Heaps<TestParts>;

    /// Opens a heap for a thread that has no heap and never leaves one open.
    fn open_as_new(heaps: &'static Family) -> Owner<TestParts> {
        // SAFETY: no heap has this number.
        unsafe { heaps.open_as(usize::MAX) }.expect("there is memory")
    }

    /// Opens a heap as the thread with the given number does, and leaves it open.
    fn leave_open(heaps: &'static Family, thread: usize) -> *const () {
        // SAFETY: the test no longer uses the heaps with this number.
        let owner = unsafe { heaps.open_as(thread) }.expect("there is memory");
        owner.heap().thread.store(thread, Relaxed);
        let tag = owner.tag().0;
        mem::forget(owner);
        tag.cast()
    }

    const MANY: usize = 2000;

    /// Regression test: each new thread looked at all heaps, although none of them was abandoned.
    #[test]
    fn opening_heaps_that_stay_open_looks_at_few_heaps() {
        static HEAPS: Family = Heaps::new(MmapArenas::new(), Malloc);
        let mut owners = Vec::new();
        let visits = visits::during(|| owners.extend((0..MANY).map(|_| open_as_new(&HEAPS))));
        assert!(visits <= 16 * MANY, "{visits} visits");
        let visits = visits::during(|| owners.extend((0..MANY).map(|_| HEAPS.open().unwrap())));
        assert!(visits <= 16 * MANY, "{visits} visits");
    }

    /// Regression test: a new thread looked at the heaps of all other threads to find the one that
    /// was abandoned.
    #[test]
    fn adopting_a_heap_among_many_looks_at_few_heaps() {
        static HEAPS: Family = Heaps::new(MmapArenas::new(), Malloc);
        let mut owners: Vec<_> = (0..MANY).map(|_| open_as_new(&HEAPS)).collect();
        let visits = visits::during(|| {
            for nth in 0..MANY {
                let tag = owners.swap_remove(nth * 7 % MANY).tag();
                owners.push(open_as_new(&HEAPS));
                assert_eq!(owners.last().map(Owner::tag), Some(tag));
            }
        });
        assert!(visits <= 4 * MANY, "{visits} visits");
    }

    #[test]
    fn abandoned_heaps_with_shifted_blocks_do_not_slow_threads_down() {
        static HEAPS: Family = Heaps::new(MmapArenas::new(), Malloc);
        let mut shifted: Vec<_> = (0..MANY).map(|_| HEAPS.open().unwrap()).collect();
        shifted.iter_mut().for_each(Owner::shift_blocks);
        drop(shifted);
        let mut owners = Vec::new();
        let visits = visits::during(|| owners.extend((0..MANY).map(|_| open_as_new(&HEAPS))));
        assert!(visits <= 16 * MANY, "{visits} visits");
        assert!(owners.iter().all(|owner| !owner.heap().is_shifted.load(Relaxed)));
        owners.extend((0..MANY).map(|_| HEAPS.open().unwrap()));
        assert_eq!(HEAPS.list.iter().count(), 2 * MANY, "shifted heaps are adopted by `open`");
    }

    /// The most heaps that may exist if `needed` would be enough.
    fn with_waste(needed: usize) -> usize {
        needed + needed / 8 + 2
    }

    #[test]
    fn heaps_that_were_left_open_are_found_again() {
        // Heaps are never freed, and a sanitizer finds those of a static.
        static HEAPS: [Family; 5] = [const { Heaps::new(MmapArenas::new(), Malloc) }; 5];
        let cases = [(0, 1), (4, 1), (64, 1), (64, 16), (1, 200)];
        for (heaps, (live, threads)) in HEAPS.iter().zip(cases) {
            let _live: Vec<_> = (0..live).map(|_| open_as_new(heaps)).collect();
            for nth in 0..2000 {
                leave_open(heaps, 1 + nth % threads);
            }
            let count = heaps.list.iter().count();
            assert!(count <= with_waste(live + threads), "{count} heaps, {live} of them live");
        }
    }

    /// In a forked child, a heap can be marked although it is on no stack.
    ///
    /// A thread marks a heap before it puts the heap on the stack, and removes the mark after it
    /// has taken the heap from the stack. If another thread forks in between, the mark stays in the
    /// child, where `push` would then skip the heap. The child therefore removes all marks (see
    /// `restack`).
    #[test]
    fn a_child_finds_heaps_that_lost_threads_have_left_off_the_stack() {
        static HEAPS: Family = Heaps::new(MmapArenas::new(), Malloc);
        let owners: Vec<_> = (0..8).map(|_| open_as_new(&HEAPS)).collect();
        drop(owners);
        // The mark of this heap stays.
        let lock = || ();
        let unlinked = HEAPS.abandoned.pop(lock).unwrap();
        unlinked.stacked.set_mark();
        HEAPS.restack();
        let owners: Vec<_> = (0..8).map(|_| open_as_new(&HEAPS)).collect();
        assert_eq!(HEAPS.list.iter().count(), 8);
        assert!(owners.iter().any(|owner| ptr::eq(owner.heap(), unlinked)));
    }

    #[test]
    fn an_abandoned_heap_that_is_missing_from_the_stack_is_found_again() {
        static HEAPS: Family = Heaps::new(MmapArenas::new(), Malloc);
        let mut owners: Vec<_> = (0..MANY).map(|_| open_as_new(&HEAPS)).collect();
        let lost = owners.swap_remove(MANY / 2);
        let tag = lost.tag();
        assert!(lost.heap().inbox.abandon());
        mem::forget(lost);
        owners.extend((0..MANY / 4).map(|_| open_as_new(&HEAPS)));
        assert!(owners.iter().any(|owner| owner.tag() == tag));
    }

    #[test]
    fn a_heap_on_the_wrong_stack_is_moved_to_the_other() {
        static HEAPS: Family = Heaps::new(MmapArenas::new(), Malloc);
        let mut owner = HEAPS.open().unwrap();
        let heap = owner.heap();
        HEAPS.abandoned.push(heap);
        owner.shift_blocks();
        drop(owner);
        let aligned = open_as_new(&HEAPS);
        assert!(!ptr::eq(aligned.heap(), heap));
        assert!(HEAPS.abandoned.pop(|| ()).is_none());
        assert!(ptr::eq(HEAPS.open().unwrap().heap(), heap));
    }

    #[test]
    fn a_heap_that_is_adopted_after_it_was_left_open_has_no_number() {
        static HEAPS: Family = Heaps::new(MmapArenas::new(), Malloc);
        let left = leave_open(&HEAPS, 5);
        // A second heap with this number arises if no search was due.
        let second = HEAPS.open().unwrap();
        second.heap().thread.store(5, Relaxed);
        let second = mem::ManuallyDrop::new(second).tag().0;
        // SAFETY: the test no longer uses the two owners.
        let found = unsafe { HEAPS.open_as(5) }.unwrap();
        let other = open_as_new(&HEAPS);
        assert_eq!(HEAPS.list.iter().count(), 2);
        for owner in [&found, &other] {
            assert!(owner.tag().0.cast() == left || owner.tag().0 == second);
            assert_eq!(owner.heap().thread.load(Relaxed), 0);
        }
    }
}
