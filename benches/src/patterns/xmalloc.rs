//! xmalloc: a ring of threads, each of which frees what the one before it allocated.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::on_threads;
use crate::{contender::Held, contenders::Global, random::Random, workload::Taken};

/// Blocks that are sent at once.
const BATCH: usize = 64;

/// Batches of a thread.
const BATCHES: usize = 5_000;

/// Batches that a thread is ahead of what it frees, so that it seldom waits for the one before.
const AHEAD: usize = 8;

/// Batches that may wait between two threads. Never are all of them full, as more than a thread is
/// ahead has room in them; so somebody can go on.
const WAITING: usize = 2 * AHEAD;

type Batch = [Held; BATCH];

/// A thread's two neighbours.
type Ends = (SyncSender<Batch>, Receiver<Batch>);

/// Blocks of 8 to 512 bytes are allocated on a thread and freed on the next.
pub(super) fn all_remote<const THREADS: usize>(_: &mut Global) -> Taken {
    let (mut senders, receivers): (Vec<_>, Vec<_>) =
        (0..THREADS).map(|_| sync_channel(WAITING)).unzip();
    senders.rotate_left(1);
    let ends: Vec<Ends> = senders.into_iter().zip(receivers).collect();
    on_threads(ends, BATCHES * BATCH, |number, ends| pass_on(ends, number))
}

fn pass_on((next, previous): &Ends, number: usize) {
    let mut random = Random::new(number as u64);
    for number in 0..BATCHES + AHEAD {
        if number < BATCHES {
            send(next, &mut random);
        }
        if number >= AHEAD
            && let Ok(batch) = previous.recv()
        {
            batch.iter().for_each(|held| held.free(&mut Global));
        }
    }
}

fn send(next: &SyncSender<Batch>, random: &mut Random) {
    let batch = [(); BATCH].map(|()| Held::new(&mut Global, random.size(8, 512)));
    // The next thread ends after it has freed as many.
    let _ = next.send(batch);
}
