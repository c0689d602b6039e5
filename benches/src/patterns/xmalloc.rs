//! The pattern xmalloc: threads in a ring. Each thread frees the blocks that the previous thread
//! allocated.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::threads::on_threads;
use crate::{contender::Held, contenders::Global, random::Random, workload::Taken};

/// The number of blocks in a batch.
const BATCH: usize = 64;

/// The number of batches that each thread sends.
const BATCHES: usize = 5_000;

/// The number of batches that a thread sends before it frees the first one that it received. With
/// this lead, a thread seldom waits.
const AHEAD: usize = 8;

/// The capacity of a channel in batches. It is larger than the number of batches that a thread
/// sends ahead, so the channels are never all full at once. At least one thread can therefore
/// always continue.
const WAITING: usize = 2 * AHEAD;

type Batch = [Held; BATCH];

/// The sending end of the channel to the next thread, and the receiving end of the channel from the
/// previous thread.
type Ends = (SyncSender<Batch>, Receiver<Batch>);

/// Allocates blocks of 8 to 512 bytes on each thread, and frees them on the next thread.
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
    // Sending cannot fail, because the next thread lives until it has received every batch.
    let _ = next.send(batch);
}
