//! `errno` stays as it was while requests succeed.

#![cfg(all(target_os = "linux", not(miri)))]

use std::ptr::NonNull;

use raw_mem::MemAlloc;
use testkit::random::Random;
use thread_heap::ThreadMalloc;

fn errno() -> &'static mut i32 {
    // SAFETY: the result points to this thread's error number, and the test keeps no reference.
    unsafe { &mut *libc::__errno_location() }
}

/// Regression test: before memory moves, the source makes a system call that is meant to fail. Its
/// error code remained.
#[test]
fn requests_that_succeed_do_not_change_the_error_number() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut blocks: [Option<NonNull<u8>>; 12] = [None; 12];
    for _ in 0..1500 {
        let size = (500 << 10) + random.below(20 << 20);
        let block = &mut blocks[random.below(12)];
        *errno() = 0;
        // SAFETY: the block is live or `None`, and is replaced by the result.
        let new = unsafe {
            match random.below(3) {
                0 => ThreadMalloc.realloc(*block, size),
                1 => {
                    ThreadMalloc.free(*block);
                    ThreadMalloc.malloc(size)
                }
                _ => {
                    ThreadMalloc.free(*block);
                    ThreadMalloc.calloc(1, size / 8)
                }
            }
        };
        assert_eq!(*errno(), 0);
        *block = new;
        assert!(block.is_some());
    }
    for block in blocks {
        // SAFETY: the block is live, and is not used again.
        unsafe { ThreadMalloc.free(block) };
    }
}
