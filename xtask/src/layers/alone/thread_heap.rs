//! Blocks that one thread takes and another frees.

use std::{sync::mpsc, thread};

use thread_heap::obmalloc::{Blocks, Pymalloc};
use thread_heap::raw_mem::{Malloc, MemAlloc};
use thread_heap::PerThread;

// SAFETY: malloc does not serve memory of the heaps' arenas.
static HEAPS: Pymalloc<PerThread, Malloc> = unsafe { Pymalloc::new(PerThread, Malloc) };

/// A block, on its way to another thread.
struct Message(std::ptr::NonNull<u8>);

// SAFETY: whoever has the message is the block's only holder.
unsafe impl Send for Message {}

pub(crate) fn main() {
    let (sender, receiver) = mpsc::channel::<Message>();
    let ender = thread::spawn(move || {
        for Message(block) in receiver {
            // SAFETY: the maker wrote a word to the block and gave it up.
            assert_eq!(unsafe { block.cast::<u64>().read() }, 7);
            // SAFETY: as above.
            unsafe { HEAPS.free(Some(block)) };
        }
    });
    for _ in 0..10_000 {
        let block = HEAPS.malloc(40).expect("memory");
        // SAFETY: the block has 40 bytes, and is this thread's.
        unsafe { block.cast::<u64>().write(7) };
        sender.send(Message(block)).expect("the ender takes all of them");
    }
    drop(sender);
    ender.join().expect("the ender ends well");
    // SAFETY: it is no block of any heap.
    assert_eq!(unsafe { PerThread.size_if_ours(std::ptr::NonNull::dangling()) }, None);
    PerThread.flush();
    let stats = PerThread.stats().expect("this thread has a heap");
    assert_eq!(stats.classes().iter().map(|class| class.in_use).sum::<usize>(), 0);
}
