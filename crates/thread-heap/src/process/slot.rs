//! The slot of a thread: a thread-local word that points to the calling thread's heap.
//!
//! A coroutine may allocate on one thread, switch stacks, and continue on another thread. The
//! compiler regards the switch as an ordinary call, and assumes that the address of a
//! `thread_local!` is the same before and after a call. Optimised code may therefore keep this
//! address in a register across the switch, and then read the word of the first thread, which is
//! running elsewhere. To prevent this, the address of the word must never leave this module, and
//! must never be computed where the compiler could keep it:
//!
//! - On x86-64 Linux, inline assembly reads the word. The compiler can keep only the offset of the
//!   word from the thread pointer, which is the same for all threads.
//! - On other systems, and with the feature `dynamic-tls`, functions that are never inlined read
//!   and write the word. They return the pointer to the heap, but never the address of the word.
//!
//! To switch stacks, a program either calls a function that the compiler cannot see through, or
//! uses inline assembly that may write memory. In both cases the compiler must read the word again
//! afterwards.
//!
//! # The model of the thread-local
//!
//! The offset of the word is loaded from the offset table of the program or library, which the
//! dynamic linker fills (the "initial-exec" model). In a program, the linker replaces the load by a
//! constant. A library that is loaded with `dlopen` is different: threads are already running, and
//! the thread-locals of the library must fit into the static block that each of them already has.
//! The C library reserves a small surplus in this block, so only a few such libraries can be
//! loaded. With the feature `dynamic-tls`, a library does not need this surplus.

use std::{
    mem::{self, ManuallyDrop},
    ptr,
};

use sync::atomic::Ordering::Relaxed;

use super::heaps::{CurrentParts, NO_HEAP};
use crate::heaps::{ThreadHeap, owner::Owner};

type Heap = &'static ThreadHeap<CurrentParts>;

#[cfg(all(
    target_arch = "x86_64",
    target_pointer_width = "64",
    target_os = "linux",
    // The dynamic linker of musl does not support the initial-exec model in libraries that are
    // loaded later.
    any(target_env = "gnu", all(target_env = "musl", target_feature = "crt-static")),
    not(feature = "dynamic-tls"),
    not(miri)
))]
mod word {
    use std::arch::{asm, global_asm};

    use crate::process::{heaps::NO_HEAP, slot::Heap};

    /// The name of the word's symbol. It contains the version of this crate, so that two versions
    /// of the crate in one program use different words.
    macro_rules! word {
        () => {
            concat!(
                "obmalloc_thread_heap_",
                env!("CARGO_PKG_VERSION_MAJOR"),
                "_",
                env!("CARGO_PKG_VERSION_MINOR"),
                "_",
                env!("CARGO_PKG_VERSION_PATCH")
            )
        };
    }

    global_asm!(
        concat!(".pushsection .tdata.", word!(), ", \"awT\", @progbits"),
        ".balign 8",
        concat!(".hidden ", word!()),
        concat!(".globl ", word!()),
        concat!(".type ", word!(), ", @object"),
        concat!(".size ", word!(), ", 8"),
        concat!(word!(), ":"),
        ".quad {no_heap}",
        ".popsection",
        no_heap = sym NO_HEAP,
    );

    /// Returns the distance from the thread pointer to the word. It is the same in all threads.
    #[inline]
    fn offset() -> usize {
        let offset: usize;
        // SAFETY: the instruction only loads the entry of the word in the offset table. The entry
        // never changes after the dynamic linker has filled it, so `nomem` is correct.
        unsafe {
            asm!(
                concat!("mov {offset}, qword ptr [rip + ", word!(), "@gottpoff]"),
                offset = out(reg) offset,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        offset
    }

    #[inline]
    pub(super) fn get() -> Heap {
        let heap: *const _;
        // SAFETY: the instruction loads the word of the calling thread. `pure` is correct because
        // the result depends only on memory and on the thread pointer. The thread pointer changes
        // only at a switch of stacks, where the compiler must assume that memory changes too.
        unsafe {
            asm!(
                "mov {heap}, qword ptr fs:[{offset}]",
                offset = in(reg) offset(),
                heap = lateout(reg) heap,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        // SAFETY: the word points to `NO_HEAP` or to a heap that was passed to `set`. Both are
        // `'static`.
        unsafe { &*heap }
    }

    pub(super) fn set(heap: Heap) {
        // SAFETY: the instruction stores to the word of the calling thread, which only this module
        // accesses. Without `nomem`, the compiler assumes that the instruction writes memory.
        unsafe {
            asm!(
                "mov qword ptr fs:[{offset}], {heap}",
                offset = in(reg) offset(),
                heap = in(reg) std::ptr::from_ref(heap),
                options(nostack, preserves_flags)
            );
        }
    }

    /// Returns the thread pointer, which is different for all live threads.
    pub(super) fn thread() -> usize {
        let thread: usize;
        // SAFETY: on this target the thread pointer points to a word that holds the pointer itself.
        unsafe {
            asm!(
                "mov {thread}, qword ptr fs:[0]",
                thread = lateout(reg) thread,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        thread
    }
}

#[cfg(not(all(
    target_arch = "x86_64",
    target_pointer_width = "64",
    target_os = "linux",
    any(target_env = "gnu", all(target_env = "musl", target_feature = "crt-static")),
    not(feature = "dynamic-tls"),
    not(miri)
)))]
mod word {
    use std::{cell::Cell, ptr};

    use crate::process::{heaps::NO_HEAP, slot::Heap};

    thread_local! {
        static WORD: Cell<Heap> = const { Cell::new(&NO_HEAP) };
    }

    #[inline(never)]
    pub(super) fn get() -> Heap {
        // The read is volatile. Otherwise the compiler could conclude that two calls of this
        // function return the same heap.
        // SAFETY: the word is initialised, and only this thread accesses it.
        WORD.with(|word| unsafe { word.as_ptr().read_volatile() })
    }

    #[inline(never)]
    pub(super) fn set(heap: Heap) {
        WORD.set(heap);
    }

    /// Returns the address of the word, which is different for all live threads.
    #[inline(never)]
    pub(super) fn thread() -> usize {
        WORD.with(|word| ptr::from_ref(word).addr())
    }
}

/// Returns the calling thread's heap, or `NO_HEAP` if the thread has no heap.
#[inline]
pub(super) fn get() -> Heap {
    word::get()
}

/// Returns an owner of the calling thread's heap, or `None` if the thread has no heap. The slot
/// keeps the ownership of the heap, so the returned value is only a temporary copy.
///
/// # Safety
///
/// - The caller must not drop the returned value, and must not use it after the slot has changed.
#[inline]
pub(super) unsafe fn owner() -> Option<ManuallyDrop<Owner<CurrentParts>>> {
    let heap = get();
    // SAFETY: the calling thread owns the heap in its slot. The caller does not drop the value, and
    // uses it only while the slot does not change (contract of `owner`).
    let owner = || ManuallyDrop::new(unsafe { Owner::new(heap) });
    (!ptr::eq(heap, &NO_HEAP)).then(owner)
}

/// Puts a heap into the slot of the calling thread. The thread must have no heap.
pub(super) fn put(owner: Owner<CurrentParts>) {
    debug_assert!(ptr::eq(get(), &NO_HEAP), "the slot is empty");
    word::set(owner.heap());
    // The slot owns the heap from now on.
    mem::forget(owner);
}

/// Takes the calling thread's heap out of the slot, and returns its owner, or `None` if the thread
/// has no heap. The thread's number is removed from the heap, so the heap is not regarded as [left
/// open](ThreadHeap::thread) when the thread ends.
pub(super) fn take() -> Option<Owner<CurrentParts>> {
    let heap = get();
    if ptr::eq(heap, &NO_HEAP) {
        return None;
    }
    heap.thread.store(0, Relaxed);
    word::set(&NO_HEAP);
    // SAFETY: the slot owned the heap, and no longer points to it.
    Some(unsafe { Owner::new(heap) })
}

/// Returns the number of the calling thread, which is never 0. No two live threads have the same
/// number. A new thread may have the number of a thread that has ended.
pub(super) fn thread() -> usize {
    word::thread()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use obmalloc::HeapTag;
    use raw_mem::PageBlocks;

    use super::*;
    use crate::{process::heaps::HEAPS, shared_arenas::SharedArenas};

    static OTHER: ThreadHeap<CurrentParts> =
        ThreadHeap::new(&HEAPS, SharedArenas::NONE, PageBlocks, HeapTag::NONE);

    fn put_other() {
        // SAFETY: the tests never use the heap, and never drop its owner.
        put(unsafe { Owner::new(&OTHER) });
    }

    #[test]
    fn each_thread_has_a_word_of_its_own() {
        let is = |heap: Heap| ptr::eq(get(), heap);
        thread::spawn(move || {
            assert!(is(&NO_HEAP));
            put_other();
            thread::spawn(move || assert!(is(&NO_HEAP))).join().unwrap();
            assert!(is(&OTHER));
            mem::forget(take());
            assert!(is(&NO_HEAP));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn live_threads_have_different_numbers() {
        let here = super::thread();
        assert_eq!(here, super::thread());
        let there = thread::spawn(super::thread).join().unwrap();
        assert!(there != here && there != 0 && here != 0);
    }

    #[test]
    fn a_heap_that_is_taken_out_of_the_slot_is_not_left_open() {
        thread::spawn(|| {
            put_other();
            OTHER.thread.store(super::thread(), Relaxed);
            mem::forget(take());
            assert_eq!(OTHER.thread.load(Relaxed), 0);
        })
        .join()
        .unwrap();
    }
}
