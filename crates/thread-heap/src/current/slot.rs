//! The word of a thread that says which heap is its own.
//!
//! A program finds its thread-locals at a distance from the thread pointer that is known when it is
//! linked. A shared library does not know it: the compiler has it ask `__tls_get_addr` each time,
//! which costs as much as the rest of an allocation. What is loaded with the program, by
//! `LD_PRELOAD` or as a dependency, may find the distance in its offset table instead: the
//! "initial-exec" model of thread-locals. Stable Rust cannot be told to use it, so under the feature
//! `static-tls` the word is declared here. The C library keeps room for a few such words in
//! libraries that are loaded later, too.

use crate::thread_heap::ThreadHeap;

use super::{NO_HEAP, Parts};

type Heap = &'static ThreadHeap<Parts>;

#[cfg(all(feature = "static-tls", target_arch = "x86_64", target_os = "linux", not(miri)))]
mod word {
    use std::arch::{asm, global_asm};

    use super::{Heap, NO_HEAP, Parts, ThreadHeap};

    global_asm!(
        ".pushsection .tdata.obmalloc_thread_heap, \"awT\", @progbits",
        ".balign 8",
        ".hidden obmalloc_thread_heap",
        ".globl obmalloc_thread_heap",
        ".type obmalloc_thread_heap, @object",
        ".size obmalloc_thread_heap, 8",
        "obmalloc_thread_heap:",
        ".quad {no_heap}",
        ".popsection",
        no_heap = sym NO_HEAP,
    );

    #[inline]
    pub(super) fn get() -> Heap {
        let heap: *const ThreadHeap<Parts>;
        // SAFETY: the word is this thread's; it is read.
        unsafe {
            asm!(
                "mov {heap}, qword ptr [rip + obmalloc_thread_heap@gottpoff]",
                "mov {heap}, qword ptr fs:[{heap}]",
                heap = out(reg) heap,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        // SAFETY: the word holds what `set` wrote last, or `NO_HEAP`.
        unsafe { &*heap }
    }

    pub(super) fn set(heap: Heap) {
        // SAFETY: the word is this thread's, and nobody else knows its address.
        unsafe {
            asm!(
                "mov {place}, qword ptr [rip + obmalloc_thread_heap@gottpoff]",
                "mov qword ptr fs:[{place}], {heap}",
                place = out(reg) _,
                heap = in(reg) std::ptr::from_ref(heap),
                options(nostack, preserves_flags)
            );
        }
    }
}

#[cfg(not(all(feature = "static-tls", target_arch = "x86_64", target_os = "linux", not(miri))))]
mod word {
    use std::cell::Cell;

    use super::{Heap, NO_HEAP};

    thread_local! {
        static WORD: Cell<Heap> = const { Cell::new(&NO_HEAP) };
    }

    #[inline]
    pub(super) fn get() -> Heap {
        WORD.get()
    }

    pub(super) fn set(heap: Heap) {
        WORD.set(heap);
    }
}

/// The calling thread's heap, or `NO_HEAP`.
#[inline]
pub(super) fn get() -> Heap {
    word::get()
}

/// Makes `heap` what [`get`] returns to this thread.
pub(super) fn set(heap: Heap) {
    word::set(heap);
}

#[cfg(test)]
mod tests {
    use std::{ptr, thread};

    use super::*;
    use crate::shared_arenas::SharedArenas;
    use obmalloc::HeapTag;
    use raw_mem::PageBlocks;

    static OTHER: ThreadHeap<Parts> =
        ThreadHeap::new(SharedArenas::NONE, PageBlocks, HeapTag::NONE);

    #[test]
    fn each_thread_has_a_word_of_its_own() {
        let is = |heap: Heap| ptr::eq(get(), heap);
        thread::spawn(move || {
            assert!(is(&NO_HEAP));
            set(&OTHER);
            thread::spawn(move || assert!(is(&NO_HEAP))).join().unwrap();
            assert!(is(&OTHER));
            set(&NO_HEAP);
            assert!(is(&NO_HEAP));
        })
        .join()
        .unwrap();
    }
}
