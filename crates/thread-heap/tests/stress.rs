//! Threads that exchange blocks and check their contents. At the end, no arena must be mapped.
//!
//! `OBMALLOC_STRESS_SECONDS` sets the duration of each test, which is 2 seconds by default.

#![cfg(not(loom))]

#[path = "common/block.rs"]
mod block;
#[path = "common/team.rs"]
mod team;

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    block::{Block, Slot},
    team::{Family, Member, OfTheProcess, Team},
};

const THREADS: &[usize] = if cfg!(miri) { &[2, 3] } else { &[2, 3, 4, 8, 16, 32, 64] };

/// The number of blocks that a thread of the ring sends at once.
const BURST: usize = if cfg!(miri) { 4 } else { 100 };

const WAITING: usize = 4;

const SLOTS: usize = if cfg!(miri) { 16 } else { 8192 };

const SHORT_LIFE: usize = if cfg!(miri) { 10 } else { 2000 };

struct Random(u64);

impl Random {
    fn new(seed: usize) -> Self {
        Self(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed as u64 + 1) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }
}

/// Allocates a block of random size. Most blocks are small, but a few have up to 1 MiB.
fn new_block(member: &mut impl Member, random: &mut Random) -> Block {
    let size = match random.below(1024) {
        0 => random.below(1 << 20),
        1..12 => random.below(100 << 10),
        12..64 => random.below(8 << 10),
        64..320 => random.below(512),
        _ => random.below(64),
    };
    member.block(size + 1, random.next())
}

fn check_and_free(member: &mut impl Member, blocks: impl IntoIterator<Item = Block>) {
    for block in blocks {
        // SAFETY: all blocks of a test come from one team, and no other code has this one.
        unsafe { member.free(block.check()) };
    }
}

/// Runs `body` for an equal time with each number of threads.
fn with_more_and_more_threads<T: Team>(team: T, body: impl Fn(T, usize, Instant)) {
    let seconds = std::env::var("OBMALLOC_STRESS_SECONDS").ok();
    let seconds = seconds.and_then(|seconds| seconds.parse::<f64>().ok()).unwrap_or(2.0);
    let each = Duration::from_secs_f64(seconds / THREADS.len() as f64);
    for threads in THREADS {
        body(team, *threads, Instant::now() + each);
        team.assert_nothing_is_mapped();
    }
}

fn join_all(threads: Vec<thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().expect("no block was overwritten"));
}

/// Runs a ring of threads. Each thread allocates blocks that the next thread frees.
fn ring<T: Team>(team: T, members: usize, end: Instant) {
    let (mut senders, mut receivers): (Vec<_>, Vec<_>) =
        (0..members).map(|_| sync_channel(WAITING)).unzip();
    senders.rotate_left(1);
    let threads = (0..members).map(|place| {
        let (sender, receiver) = (senders.remove(0), receivers.remove(0));
        thread::spawn(move || pass_on(&mut team.join(), place, sender, &receiver, end))
    });
    join_all(threads.collect());
}

fn pass_on(
    member: &mut impl Member,
    place: usize,
    sender: SyncSender<Vec<Block>>,
    receiver: &Receiver<Vec<Block>>,
    end: Instant,
) {
    let mut random = Random::new(place);
    while Instant::now() < end {
        let burst = (0..BURST).map(|_| new_block(member, &mut random)).collect();
        match sender.try_send(burst) {
            Ok(()) => {}
            Err(TrySendError::Full(burst) | TrySendError::Disconnected(burst)) => {
                check_and_free(member, burst);
            }
        }
        while let Ok(burst) = receiver.try_recv() {
            check_and_free(member, burst);
        }
        if random.below(64) == 0 {
            member.flush();
        }
    }
    // The next thread ends once its sender is dropped.
    drop(sender);
    receiver.iter().for_each(|burst| check_and_free(member, burst));
}

fn slots() -> Arc<[Slot]> {
    (0..SLOTS).map(|_| Slot::default()).collect()
}

/// Replaces a random block. Occasionally frees many blocks, so that arenas are unmapped.
fn exchange(member: &mut impl Member, slots: &[Slot], random: &mut Random) {
    if random.below(SLOTS) == 0 {
        let from = random.below(SLOTS);
        let blocks = slots[from..].iter().filter_map(|slot| slot.swap(None));
        check_and_free(member, blocks);
        member.flush();
    }
    let block = new_block(member, random);
    check_and_free(member, slots[random.below(SLOTS)].swap(Some(block)));
}

fn empty(team: impl Team, slots: &[Slot]) {
    check_and_free(&mut team.join(), slots.iter().filter_map(|slot| slot.swap(None)));
}

fn all_to_all<T: Team>(team: T, threads: usize, end: Instant) {
    let slots = slots();
    let threads = (0..threads).map(|place| {
        let slots = Arc::clone(&slots);
        thread::spawn(move || {
            let (mut member, mut random) = (team.join(), Random::new(place));
            while Instant::now() < end {
                (0..BURST).for_each(|_| exchange(&mut member, &slots, &mut random));
            }
        })
    });
    join_all(threads.collect());
    empty(team, &slots);
}

fn short_lives<T: Team>(team: T, at_once: usize, end: Instant) {
    let slots = slots();
    let parents = (0..at_once).map(|place| {
        let slots = Arc::clone(&slots);
        thread::spawn(move || {
            let mut lives = 0;
            while lives == 0 || Instant::now() < end {
                lives += 1;
                let slots = Arc::clone(&slots);
                let child = thread::spawn(move || {
                    let (mut member, mut random) = (team.join(), Random::new(place + 64 * lives));
                    (0..SHORT_LIFE).for_each(|_| exchange(&mut member, &slots, &mut random));
                });
                child.join().expect("no block was overwritten");
            }
        })
    });
    join_all(parents.collect());
    empty(team, &slots);
}

#[test]
fn blocks_are_passed_on_in_a_ring_of_heaps() {
    with_more_and_more_threads(Family::new(), ring);
}

#[test]
fn blocks_are_passed_on_in_a_ring_of_threads() {
    with_more_and_more_threads(OfTheProcess, ring);
}

#[test]
fn every_heap_frees_blocks_of_every_other() {
    with_more_and_more_threads(Family::that_retains_arenas(), all_to_all);
}

#[test]
fn every_thread_frees_blocks_of_every_other() {
    with_more_and_more_threads(OfTheProcess, all_to_all);
}

#[test]
fn heaps_are_opened_and_closed_while_others_use_their_blocks() {
    with_more_and_more_threads(Family::that_retains_arenas(), short_lives);
}

#[test]
fn threads_start_and_end_while_others_use_their_blocks() {
    with_more_and_more_threads(OfTheProcess, short_lives);
}

/// ThreadSanitizer must report this race. `cargo xtask stress` runs the test on its own.
#[test]
#[cfg(tsan)]
fn a_race_on_purpose() {
    use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

    static PLACE: AtomicPtr<u64> = AtomicPtr::new(std::ptr::null_mut());
    let mut word = 0_u64;
    PLACE.store(&raw mut word, Relaxed);
    thread::scope(|scope| {
        for _ in 0..2 {
            // SAFETY: the word lives until the scope ends. The race is intended.
            scope.spawn(|| unsafe { PLACE.load(Relaxed).write_volatile(1) });
        }
    });
}
