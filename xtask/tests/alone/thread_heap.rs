//! Blocks that one thread allocates and another frees.

use std::{sync::mpsc, thread};

use thread_heap::obmalloc::{Blocks, Pymalloc};
use thread_heap::raw_mem::{Malloc, MemAlloc};
use thread_heap::PerThread;

// SAFETY: malloc and the heaps' arenas share no memory.
static HEAPS: Pymalloc<PerThread, Malloc> = unsafe { Pymalloc::new(PerThread, Malloc) };

/// A block, on its way to another thread.
struct Message(std::ptr::NonNull<u8>);

// SAFETY: a message owns its block.
unsafe impl Send for Message {}

pub(crate) fn main() {
    let (sender, receiver) = mpsc::channel::<Message>();
    let receiving = thread::spawn(move || {
        for Message(block) in receiver {
            // SAFETY: the sender wrote a word to the block and gave up its ownership.
            assert_eq!(unsafe { block.cast::<u64>().read() }, 7);
            // SAFETY: the block came from this allocator and is not used again.
            unsafe { HEAPS.free(Some(block)) };
        }
    });
    for _ in 0..10_000 {
        let block = HEAPS.malloc(40).expect("memory");
        // SAFETY: the block has 40 bytes, and this thread owns it.
        unsafe { block.cast::<u64>().write(7) };
        sender.send(Message(block)).expect("the receiver takes all of them");
    }
    drop(sender);
    receiving.join().expect("the receiver succeeds");
    // SAFETY: a dangling pointer is in no heap, and the query accepts any address.
    assert_eq!(unsafe { PerThread.size_if_ours(std::ptr::NonNull::dangling()) }, None);
    PerThread.flush();
    let stats = PerThread.stats().expect("this thread has a heap");
    assert_eq!(stats.classes().iter().map(|class| class.in_use).sum::<usize>(), 0);
}
