//! Requests of every size and alignment, within one thread and between threads.

use std::{
    ptr::NonNull,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use raw_mem::{MAX_REQUEST, MemAlloc};
use testkit::random::Random;
use thread_heap::{PerThread, ThreadMalloc};

/// Sizes around the limits between the different ways to serve a request.
fn borders() -> Vec<usize> {
    let borders = [0, 16, 512, 1 << 10, 8 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10];
    let large = [480 << 10, 512 << 10, 1 << 20, 4 << 20];
    let around = |size: &usize| [size.saturating_sub(1), *size, size + 1];
    borders.iter().chain(&large).flat_map(around).collect()
}

/// A block that is filled with a byte.
struct Filled {
    start: NonNull<u8>,
    size: usize,
    byte: u8,
}

// SAFETY: the value owns its block, and any thread may use and free it.
unsafe impl Send for Filled {}

impl Filled {
    fn new(start: NonNull<u8>, size: usize, byte: u8) -> Self {
        // SAFETY: the block is new, and has `size` bytes.
        unsafe { start.write_bytes(byte, size) };
        Self { start, size, byte }
    }

    fn check(&self, len: usize) {
        // SAFETY: the block is live, and its first `size` bytes are initialised.
        let bytes = unsafe { std::slice::from_raw_parts(self.start.as_ptr(), len.min(self.size)) };
        assert!(bytes.iter().all(|byte| *byte == self.byte), "{} bytes were changed", self.size);
    }

    fn resize(self, size: usize) -> Self {
        // SAFETY: the block is live, and replaced by the result.
        let start = unsafe { ThreadMalloc.realloc(Some(self.start), size) }.unwrap();
        let moved = Self { start, ..self };
        moved.check(size);
        Self::new(start, size, self.byte.wrapping_add(1))
    }

    fn free(self) {
        self.check(self.size);
        // SAFETY: the block is live, and not used again.
        unsafe { ThreadMalloc.free(Some(self.start)) };
    }
}

#[test]
fn all_usable_bytes_of_every_size_and_alignment_can_be_used() {
    for align in (0..=23).map(|bits| 1 << bits) {
        for size in borders() {
            let start = ThreadMalloc.alloc_aligned(size, align).unwrap();
            assert!(start.addr().get().is_multiple_of(align.max(16)), "{size} bytes, {align}");
            // SAFETY: the block is live.
            let usable = unsafe { ThreadMalloc.usable_size(start) };
            // A span may use only a part of its last unit of 16 KiB. The sizes of large mappings
            // are rounded up.
            let most = size + (size + align) / 8 + align.max(16 << 10);
            assert!((size..=most).contains(&usable), "{usable} bytes for {size}, {align}");
            Filled::new(start, usable, 7).free();
        }
    }
}

#[test]
fn zeroed_memory_is_zero_even_if_it_was_used_before() {
    for align in [1, 4096, 32 << 10, 1 << 20] {
        for size in borders().into_iter().filter(|size| *size <= 2 << 20) {
            for _ in 0..3 {
                let start = ThreadMalloc.alloc_aligned_zeroed(size, align).unwrap();
                let zeros = Filled { start, size, byte: 0 };
                zeros.check(size);
                Filled::new(start, size, 0xff).free();
            }
        }
    }
}

#[test]
fn a_resize_across_every_border_keeps_the_contents() {
    for from in borders() {
        for to in borders() {
            let start = ThreadMalloc.malloc(from).unwrap();
            Filled::new(start, from, 3).resize(to).free();
        }
    }
}

#[test]
fn a_block_that_shrinks_or_grows_a_little_stays_in_place() {
    for size in [100, 1000, 10_000, 100_000, 400_000] {
        let start = ThreadMalloc.malloc(size).unwrap();
        // SAFETY: the block is live, and replaced by the result.
        let same = unsafe { ThreadMalloc.realloc(Some(start), size - size / 8) };
        assert_eq!(same, Some(start));
        // SAFETY: the block is live.
        let usable = unsafe { ThreadMalloc.usable_size(start) };
        // SAFETY: the block is live, and replaced by the result.
        let same = unsafe { ThreadMalloc.realloc(same, usable) };
        assert_eq!(same, Some(start));
        // SAFETY: the block is live, and not used again.
        unsafe { ThreadMalloc.free(same) };
    }
}

#[test]
fn impossible_requests_are_refused_and_change_nothing() {
    let start = ThreadMalloc.malloc(1 << 20).unwrap();
    let block = Filled::new(start, 1 << 20, 9);
    for size in [MAX_REQUEST, MAX_REQUEST + 1, usize::MAX] {
        assert_eq!(ThreadMalloc.malloc(size), None);
        assert_eq!(ThreadMalloc.calloc(size, 2), None);
        assert_eq!(ThreadMalloc.alloc_aligned(size, 64), None);
        // SAFETY: the block is live, and stays live because the request fails.
        assert_eq!(unsafe { ThreadMalloc.realloc(Some(start), size) }, None);
    }
    block.free();
}

#[test]
fn an_alignment_that_is_no_power_of_two_is_refused() {
    // From now on, the heap retains a block for the largest size below.
    for _ in 0..4 {
        let block = ThreadMalloc.malloc(3 << 20);
        // SAFETY: the block is live, and is not used again.
        unsafe { ThreadMalloc.free(block) };
    }
    for align in [0, 24, 5000, (1 << 20) + 4096, 1_992_294] {
        for size in [100, 5000, 200_000, 3 << 20] {
            assert!(ThreadMalloc.alloc_aligned(size, align).is_none() || align == 0, "{align}");
            assert!(PerThread.alloc_large(size, align).is_none(), "{align}");
        }
    }
}

fn random_size(random: &mut Random) -> usize {
    let bits = random.below(22);
    (1 << bits) + random.below(1 << bits)
}

/// Allocates, resizes and frees blocks of all sizes. Also exchanges blocks with other threads.
fn work(seed: u64, to: SyncSender<Filled>, from: Receiver<Filled>) {
    let mut random = Random(seed);
    let mut blocks: Vec<Filled> = Vec::new();
    for nth in 0..4000 {
        match random.below(5) {
            0 | 1 => {
                let size = random_size(&mut random);
                let align = 1 << random.below(14);
                let start = ThreadMalloc.alloc_aligned(size, align).unwrap();
                blocks.push(Filled::new(start, size, nth as u8));
            }
            2 if !blocks.is_empty() => {
                let block = blocks.swap_remove(random.below(blocks.len()));
                blocks.push(block.resize(random_size(&mut random)));
            }
            3 if !blocks.is_empty() => {
                let block = blocks.swap_remove(random.below(blocks.len()));
                if let Err(back) = to.try_send(block) {
                    let (std::sync::mpsc::TrySendError::Full(block)
                    | std::sync::mpsc::TrySendError::Disconnected(block)) = back;
                    block.free();
                }
            }
            _ => {
                if let Ok(block) = from.try_recv() {
                    block.free();
                }
            }
        }
        if blocks.len() > 60 {
            blocks.swap_remove(random.below(blocks.len())).free();
        }
    }
    blocks.into_iter().for_each(Filled::free);
    drop(to);
    from.into_iter().for_each(Filled::free);
}

#[test]
fn threads_free_each_others_blocks_of_every_size() {
    let (to_one, from_two) = sync_channel(100);
    let (to_two, from_one) = sync_channel(100);
    let one = thread::spawn(move || work(1, to_two, from_two));
    let two = thread::spawn(move || work(2, to_one, from_one));
    one.join().unwrap();
    two.join().unwrap();
    PerThread.flush();
    let stats = PerThread.stats_of_all();
    stats.total.classes().iter().for_each(|class| assert!(class.block_size > 0));
}
