//! The slot of a thread: a thread-local word that points to the calling thread's heap.
//!
//! The compiler may cache the address of a `thread_local!` variable, so a coroutine that moves to
//! another thread could use the variable of the old thread. This module therefore hides the address
//! of the slot, the thread-local word that points to the thread's heap, from the compiler:
//! - On x86-64 Linux, inline assembly accesses the slot at a fixed offset from the thread pointer.
//! - On other systems, and with the feature `dynamic-tls`, only functions that are never inlined
//!   access the slot.
//!
//! The compiler reads the word again after a stack switch, because the switch may write memory.
//!
//! # The model of the thread-local
//!
//! On x86-64 Linux with glibc, the thread-local word that points to a thread's heap uses the
//! "initial-exec" model of thread-local storage, which allows fast access. Libraries that are
//! loaded with `dlopen` share a small reserve of memory for variables of this model. If the reserve
//! is used up, `dlopen` cannot load a library that contains this crate. The feature `dynamic-tls`
//! avoids this, because it makes the word an ordinary `thread_local!`, which needs no room in the
//! reserve.

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
    // The dynamic linker of musl does not support initial-exec in libraries that `dlopen` loads.
    any(target_env = "gnu", all(target_env = "musl", target_feature = "crt-static")),
    not(feature = "dynamic-tls"),
    not(miri)
))]
mod word {
    use std::arch::{asm, global_asm};

    use crate::process::{heaps::NO_HEAP, slot::Heap};

    /// The symbol of the word. Crates of different versions in one program use different words.
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

    /// Returns the distance from the thread pointer to the word, which is the same in all threads.
    #[inline]
    fn offset() -> usize {
        let offset: usize;
        // SAFETY: the instruction only loads an entry of the offset table, which never changes
        // after the dynamic linker has filled it. `nomem` is therefore correct.
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
    pub(super) fn prepare() {
        // SAFETY: the assembly has no instruction. It only makes the compiler load the offset
        // before it.
        unsafe {
            asm!(
                "/* {offset} */",
                offset = in(reg) offset(),
                options(nomem, nostack, preserves_flags)
            );
        }
    }

    #[inline]
    pub(super) fn get() -> Heap {
        let heap: *const _;
        // SAFETY: the instruction loads the calling thread's word. `pure` is correct, because the
        // result depends only on memory and on the thread pointer. That pointer changes only in a
        // stack switch, in which the compiler must assume that memory changes as well.
        unsafe {
            asm!(
                "mov {heap}, qword ptr fs:[{offset}]",
                offset = in(reg) offset(),
                heap = lateout(reg) heap,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        // SAFETY: the word points to `NO_HEAP` or to a heap passed to `set`. Both are `'static`.
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

    #[inline]
    pub(super) fn prepare() {}

    #[inline(never)]
    pub(super) fn get() -> Heap {
        // The volatile read keeps the compiler from merging two calls around a stack switch.
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

/// Makes the compiler load the offset of the word here, on systems on which it needs the offset.
#[inline]
pub(super) fn prepare() {
    word::prepare();
}

/// Returns the calling thread's heap, or `NO_HEAP` if the thread has no heap.
#[inline]
pub(super) fn get() -> Heap {
    word::get()
}

/// Returns an `Owner` of the calling thread's heap, or `None` if the thread has no heap.
///
/// The slot keeps the ownership of the heap, so the returned `Owner` is only a temporary copy.
///
/// # Safety
///
/// - The caller must not drop the returned `Owner`, and must not use it after the slot has changed.
#[inline]
pub(super) unsafe fn owner() -> Option<ManuallyDrop<Owner<CurrentParts>>> {
    let heap = get();
    // SAFETY: the calling thread owns the heap in its slot. The caller does not drop the value, and
    // uses it only while the slot does not change (contract of `owner`).
    let owner = || ManuallyDrop::new(unsafe { Owner::new(heap) });
    (!ptr::eq(heap, &NO_HEAP)).then(owner)
}

/// Puts a heap into the slot of the calling thread, which must have no heap.
pub(super) fn put(owner: Owner<CurrentParts>) {
    debug_assert!(ptr::eq(get(), &NO_HEAP), "the slot is empty");
    word::set(owner.heap());
    mem::forget(owner);
}

/// Takes the calling thread's heap out of the slot. Returns `None` if the thread has no heap.
///
/// Also resets the thread number of the heap, so that no later thread regards the heap as [left
/// open](ThreadHeap::thread).
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

/// Returns the number of the calling thread, which is not 0 and is unique among live threads.
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
