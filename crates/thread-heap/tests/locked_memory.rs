//! A process with locked memory (`mlockall`), whose pages the system refuses to purge.

#![cfg(all(target_os = "linux", not(miri), not(loom)))]

use std::{fs, io, slice};

use obmalloc::BlockPtr;
use raw_mem::{MemAlloc, preserving_errno};
use thread_heap::{PerThread, ThreadMalloc};

/// The sizes of blocks of several classes. All blocks together are a little smaller than the 8 MiB
/// that a user may lock.
const SIZES: [usize; 5] = [64, 400, 3000, 20_000, 100_000];
const BYTES_OF_EACH: usize = 1 << 20;

fn alloc(size: usize) -> BlockPtr {
    let start = ThreadMalloc.malloc(size).expect("there is memory");
    // SAFETY: the block is new and has this many bytes.
    unsafe { start.write_bytes(7, size) };
    // SAFETY: the block is in use and belongs to the caller.
    unsafe { BlockPtr::from_start(start) }
}

fn free(block: BlockPtr) {
    // SAFETY: the block came from these heaps, and is not used again.
    unsafe { ThreadMalloc.free(Some(block.into_start())) };
}

/// Returns the size of this process's memory and of its locked memory, in KiB.
fn figures() -> (usize, usize) {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("it is there");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    (kib("VmRSS:"), kib("VmLck:"))
}

fn lock_everything() {
    // SAFETY: the call changes no contents.
    if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_ONFAULT) } != 0 {
        panic!("cannot lock the memory of this process: {}", io::Error::last_os_error());
    }
}

fn is_errno_kept(action: impl FnOnce()) -> bool {
    preserving_errno(|| {
        // SAFETY: the C library's `errno` exists as long as its thread runs.
        unsafe { *libc::__errno_location() = libc::EBADF };
        action();
        io::Error::last_os_error().raw_os_error() == Some(libc::EBADF)
    })
}

#[test]
fn a_locked_process_keeps_its_pages_and_its_blocks_stay_intact() {
    let count = |size: &usize| BYTES_OF_EACH / size;
    let mut blocks: Vec<_> =
        SIZES.iter().flat_map(|size| (0..count(size)).map(|_| (*size, alloc(*size)))).collect();
    lock_everything();
    let (_, locked) = figures();
    assert!(locked >= 4 << 10, "{locked} KiB are locked");
    let mut kept = Vec::new();
    let is_kept = is_errno_kept(|| {
        for (nth, (size, block)) in blocks.drain(..).enumerate() {
            if nth % 10 == 0 { kept.push((size, block)) } else { free(block) }
        }
    });
    assert!(is_kept, "a free has changed errno");
    let (before, _) = figures();
    let mut bytes = 0;
    assert!(is_errno_kept(|| bytes = PerThread.flush()), "a flush has changed errno");
    let (after, _) = figures();
    // Whole arenas can be unmapped, but pages cannot be purged.
    let gone = before.saturating_sub(after);
    assert!(bytes >> 10 <= gone + 256, "{bytes} bytes are said to be gone, but {gone} KiB are");
    // Memory that could not be purged must not be treated as zeroed.
    for size in SIZES {
        for _ in 0..count(&size) {
            let start = ThreadMalloc.calloc(1, size).expect("there is memory");
            // SAFETY: the block is new, and all of its bytes are initialised.
            let contents = unsafe { slice::from_raw_parts(start.as_ptr(), size) };
            assert!(contents.iter().all(|byte| *byte == 0), "{size} bytes are not zero");
            // SAFETY: the block has this many bytes.
            unsafe { start.write_bytes(9, size) };
            // SAFETY: the block is in use and belongs to the test.
            blocks.push((size, unsafe { BlockPtr::from_start(start) }));
        }
    }
    for (size, block) in &kept {
        // SAFETY: the block is in use, and all of its bytes are initialised.
        let contents = unsafe { slice::from_raw_parts(block.start().as_ptr(), *size) };
        assert!(contents.iter().all(|byte| *byte == 7), "a block of {size} bytes has changed");
    }
    // After `munlockall`, the memory can be returned to the system.
    // SAFETY: the call changes no contents.
    assert_eq!(unsafe { libc::munlockall() }, 0);
    blocks.into_iter().for_each(|(_, block)| free(block));
    let (before, _) = figures();
    let bytes = PerThread.flush();
    let (after, _) = figures();
    assert!(bytes > 2 << 20 && before - after > 2 << 10, "{bytes} bytes, {before}, then {after}");
    kept.into_iter().for_each(|(_, block)| free(block));
}
