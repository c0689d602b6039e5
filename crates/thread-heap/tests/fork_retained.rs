//! What the lost threads of a forked child retained does not count against the child.

#![cfg(all(target_os = "linux", not(miri), not(loom)))]

use std::{sync::mpsc, thread};

use thread_heap::{PerThread, ThreadMalloc, raw_mem::MemAlloc};

const MIB: usize = 1 << 20;

/// Requests and frees blocks of `size` bytes until the calling thread's heap retains some of them.
/// Returns the number of bytes that all heaps retain then.
fn retain(size: usize) -> usize {
    for _ in 0..10 {
        let blocks = [(); 8].map(|()| ThreadMalloc.malloc(size).expect("there is memory"));
        // SAFETY: the blocks came from this allocator, and are not used again.
        blocks.into_iter().for_each(|block| unsafe { ThreadMalloc.free(Some(block)) });
    }
    PerThread.figures().retained_by_heaps
}

/// No other test noticed a source that still counted, in a forked child, what lost threads had
/// retained (a mutant).
#[test]
fn a_child_may_retain_as_much_as_if_it_had_never_had_other_threads() {
    let (ready, is_ready) = mpsc::channel();
    let (end, is_over) = mpsc::channel::<()>();
    let other = thread::spawn(move || {
        ready.send(retain(MIB)).expect("the main thread waits");
        let _ = is_over.recv();
    });
    let by_other = is_ready.recv().expect("the thread sends a number");
    assert!(by_other >= 4 * MIB, "{by_other} bytes");
    // SAFETY: the child only allocates, frees and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let retained = retain(2 * MIB);
        let is_good = retained >= by_other + 8 * MIB;
        println!("{by_other} bytes are lost, and {retained} bytes are retained in the child");
        // SAFETY: the call has no requirements. It ends the child immediately.
        unsafe { libc::_exit(i32::from(!is_good)) };
    }
    let mut status = 1;
    // SAFETY: the pointer is valid.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    drop(end);
    other.join().expect("the thread does not panic");
    assert_eq!(status, 0);
}
