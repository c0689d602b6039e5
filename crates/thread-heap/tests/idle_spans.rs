//! Blocks above the small threshold that are freed while their owner is idle.

use std::{sync::mpsc::sync_channel, thread};

use raw_mem::MemAlloc;
use thread_heap::{PerThread, ThreadMalloc};

/// The total size of the blocks in bytes.
const BYTES: usize = 100 << 20;

/// Returns the address of a new block, which can be sent to another thread.
fn new_block(size: usize) -> usize {
    let start = ThreadMalloc.malloc(size).unwrap();
    // SAFETY: the block is new, and has this many bytes.
    unsafe { start.write_bytes(1, size) };
    start.as_ptr().expose_provenance()
}

/// Returns the resident memory of this process, in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn blocks_above_the_small_threshold_that_wait_for_an_idle_owner_are_purged() {
    for size in [256 << 10, 130_000, 100_000, 17_000, 9000, 8192, 3000, 600] {
        blocks_that_wait_are_purged(size);
    }
}

fn blocks_that_wait_are_purged(size: usize) {
    let count = BYTES / size;
    let (send, receive) = sync_channel(0);
    let (done, wait) = sync_channel::<()>(0);
    let owner = thread::spawn(move || {
        (0..count).for_each(|_| send.send(new_block(size)).unwrap());
        wait.recv().unwrap_err();
        // The heap reclaims the blocks that were purged while the thread waited.
        let again: Vec<_> = (0..count).map(|_| new_block(size)).collect();
        again.into_iter().for_each(free);
    });
    let before = resident();
    let blocks: Vec<_> = (0..count).map(|_| receive.recv().unwrap()).collect();
    assert!(resident() > before + BYTES / 1024 * 3 / 4);
    blocks.into_iter().for_each(free);
    // At most 16 MiB wait without being purged.
    assert!(resident() < before + 24 * 1024, "{} KiB of {size} bytes stay", resident() - before);
    PerThread.flush();
    assert!(resident() < before + 8 * 1024, "{} KiB of {size} bytes stay", resident() - before);
    drop(done);
    owner.join().unwrap();
    PerThread.flush();
}

fn free(address: usize) {
    let start = std::ptr::with_exposed_provenance_mut(address);
    // SAFETY: the block is live, and its address was given to this function alone.
    unsafe { ThreadMalloc.free(std::ptr::NonNull::new(start)) };
}
