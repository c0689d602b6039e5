//! A large zeroed block of which the program uses little needs little memory.

#![cfg(all(target_os = "linux", not(miri)))]

use std::fs;

use raw_mem::MemAlloc;
use thread_heap::ThreadMalloc;

const MIB: usize = 1 << 20;

const SIZE: usize = 96 * MIB + 12_345;

/// Returns the size of this process's memory in bytes.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux has this file");
    statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .map_or(0, |pages: usize| pages * 4096)
}

/// Regression test: from the third turn on, the whole block was cleared.
#[test]
fn zeroed_blocks_that_are_barely_used_need_little_memory_again_and_again() {
    // A huge page would hold many bytes that the program does not use.
    // SAFETY: the call only affects the memory that this process maps from now on.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    let before = resident();
    for turn in 0..6 {
        let start = ThreadMalloc.calloc(1, SIZE).expect("there is memory");
        for at in (0..SIZE).step_by(3 * MIB).chain([SIZE - 1]) {
            // SAFETY: the byte lies in the block.
            unsafe {
                assert_eq!(start.add(at).read(), 0, "byte {at} in turn {turn}");
                start.add(at).write(7);
            }
        }
        let growth = resident().saturating_sub(before) / MIB;
        assert!(growth < 16, "{growth} MiB in turn {turn}");
        // SAFETY: the block is live, and is not used again.
        unsafe { ThreadMalloc.free(Some(start)) };
    }
}
