//! Many threads, for as long as one likes: every block's contents are checked where it is freed,
//! and every arena has come back at the end.
//!
//! `OBMALLOC_STRESS_SECONDS` is how long each test takes, 2 if it is not set.

#![cfg(not(loom))]

#[path = "common/block.rs"]
mod block;
#[path = "common/team.rs"]
mod team;

use std::{
    sync::{
        Arc,
        atomic::{AtomicPtr, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use obmalloc::SizeClass;
use thread_heap::ThreadGeometry;

use crate::{
    block::{Block, Slot},
    team::{ByHand, Member, OfTheProcess, Team},
};

/// How many threads there are, one after the other.
const THREADS: &[usize] = if cfg!(miri) { &[2, 3] } else { &[2, 3, 4, 8, 16, 32, 64] };

/// Blocks that a member of a ring sends at once.
const BURST: usize = if cfg!(miri) { 4 } else { 100 };

/// Bursts that wait between two members of a ring.
const WAITING: usize = 4;

/// Blocks that all threads exchange.
const SLOTS: usize = if cfg!(miri) { 16 } else { 8192 };

/// Exchanges in the life of a thread that does not live long.
const SHORT_LIFE: usize = if cfg!(miri) { 10 } else { 2000 };

/// Random numbers: a xorshift, which never is 0.
struct Random(u64);

impl Random {
    /// The numbers of one thread.
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

fn new_block(member: &impl Member, random: &mut Random) -> Block {
    // Small classes are frequent; but each has its pools.
    let size = if random.below(4) == 0 { random.below(512) } else { random.below(64) } + 1;
    let class = SizeClass::<ThreadGeometry>::of(size).expect("it is small");
    Block::fill(member.alloc(class), class, random.next())
}

fn check_and_free(member: &impl Member, blocks: impl IntoIterator<Item = Block>) {
    for block in blocks {
        // SAFETY: all blocks of a test are of one team, and this was the one place that had it.
        unsafe { member.free(block.check()) };
    }
}

/// Runs `body` with each number of threads, until the time that it has is over.
fn with_more_and_more_threads<T: Team>(team: T, body: impl Fn(T, usize, Instant)) {
    let seconds = std::env::var("OBMALLOC_STRESS_SECONDS").ok();
    let seconds = seconds.and_then(|seconds| seconds.parse::<f64>().ok()).unwrap_or(2.0);
    let each = Duration::from_secs_f64(seconds / THREADS.len() as f64);
    for threads in THREADS {
        body(team, *threads, Instant::now() + each);
        team.nothing_is_left();
    }
}

fn join_all(threads: Vec<thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().expect("no block was overwritten"));
}

/// Each thread allocates for the next one, and frees what the one before allocated.
fn ring<T: Team>(team: T, members: usize, end: Instant) {
    let (mut senders, mut receivers): (Vec<_>, Vec<_>) =
        (0..members).map(|_| sync_channel(WAITING)).unzip();
    senders.rotate_left(1);
    let threads = (0..members).map(|place| {
        let (sender, receiver) = (senders.remove(0), receivers.remove(0));
        thread::spawn(move || pass_on(&team.join(), place, sender, &receiver, end))
    });
    join_all(threads.collect());
}

fn pass_on(
    member: &impl Member,
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
            // Takes over what waits in the inboxes of all others.
            member.flush();
        }
    }
    // The next one ends when there is no sender any more.
    drop(sender);
    receiver.iter().for_each(|burst| check_and_free(member, burst));
}

fn slots() -> Arc<[Slot]> {
    (0..SLOTS).map(|_| Slot::default()).collect()
}

/// Exchanges a block of any thread for a new one; seldom, takes a lot of them away, so that arenas
/// come and go.
fn exchange(member: &impl Member, slots: &[Slot], random: &mut Random) {
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
    check_and_free(&team.join(), slots.iter().filter_map(|slot| slot.swap(None)));
}

/// Each thread frees what any other has allocated.
fn all_to_all<T: Team>(team: T, threads: usize, end: Instant) {
    let slots = slots();
    let threads = (0..threads).map(|place| {
        let slots = Arc::clone(&slots);
        thread::spawn(move || {
            let (member, mut random) = (team.join(), Random::new(place));
            while Instant::now() < end {
                (0..BURST).for_each(|_| exchange(&member, &slots, &mut random));
            }
        })
    });
    join_all(threads.collect());
    empty(team, &slots);
}

/// Threads are born and end all the time, and their blocks live on.
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
                    let (member, mut random) = (team.join(), Random::new(place + 64 * lives));
                    (0..SHORT_LIFE).for_each(|_| exchange(&member, &slots, &mut random));
                });
                child.join().expect("no block was overwritten");
            }
        })
    });
    join_all(parents.collect());
    empty(team, &slots);
}

#[test]
fn blocks_go_round_in_a_ring_of_heaps() {
    with_more_and_more_threads(ByHand::new(), ring);
}

#[test]
fn blocks_go_round_in_a_ring_of_threads() {
    with_more_and_more_threads(OfTheProcess, ring);
}

#[test]
fn every_heap_frees_blocks_of_every_other() {
    with_more_and_more_threads(ByHand::that_keep_arenas(), all_to_all);
}

#[test]
fn every_thread_frees_blocks_of_every_other() {
    with_more_and_more_threads(OfTheProcess, all_to_all);
}

#[test]
fn heaps_are_opened_and_closed_while_their_blocks_live_elsewhere() {
    with_more_and_more_threads(ByHand::that_keep_arenas(), short_lives);
}

#[test]
fn threads_are_born_and_end_while_their_blocks_live_elsewhere() {
    with_more_and_more_threads(OfTheProcess, short_lives);
}

#[test]
#[ignore = "a race, which ThreadSanitizer must see for its silence to mean something"]
fn a_race_on_purpose() {
    static PLACE: AtomicPtr<u64> = AtomicPtr::new(std::ptr::null_mut());
    let mut word = 0_u64;
    PLACE.store(&raw mut word, Relaxed);
    thread::scope(|scope| {
        for _ in 0..2 {
            // SAFETY: the word is there until the scope ends. Two threads write to it at once,
            // which is the point.
            scope.spawn(|| unsafe { PLACE.load(Relaxed).write_volatile(1) });
        }
    });
}
