//! The pattern xmalloc: each thread frees the blocks that the previous thread in a ring allocated.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::threads::on_threads;
use crate::{contender::Held, contenders::Global, random::Random, workload::Taken};

const BATCH: usize = 64;

const BATCHES: usize = 5_000;

/// The number of batches that a thread sends before it frees one, so that it seldom waits.
const AHEAD: usize = 8;

/// The capacity of a channel. It is larger than [`AHEAD`], so that the channels are never all full.
const WAITING: usize = 2 * AHEAD;

type Batch = [Held; BATCH];

type Ends = (SyncSender<Batch>, Receiver<Batch>);

/// Allocates blocks of 8 to 512 bytes on each thread, and frees them on the next thread.
pub(super) fn all_remote<const THREADS: usize>(_: &mut Global) -> Taken {
    ring::<THREADS>(BATCHES, |random| random.size(8, 512))
}

/// Does the same with blocks of 16 bytes to 64 KiB, in fewer batches.
pub(super) fn mixed<const THREADS: usize>(_: &mut Global) -> Taken {
    ring::<THREADS>(BATCHES / 5, |random| random.log_uniform(4, 16))
}

/// Arranges the threads in a ring, and passes `batches` of blocks from each one to the next.
fn ring<const THREADS: usize>(batches: usize, size: impl Fn(&mut Random) -> usize + Sync) -> Taken {
    let (mut senders, receivers): (Vec<_>, Vec<_>) =
        (0..THREADS).map(|_| sync_channel(WAITING)).unzip();
    senders.rotate_left(1);
    let ends: Vec<Ends> = senders.into_iter().zip(receivers).collect();
    on_threads(ends, batches * BATCH, |number, ends| pass_on(ends, number, batches, &size))
}

fn pass_on(
    (next, previous): &Ends,
    number: usize,
    batches: usize,
    size: impl Fn(&mut Random) -> usize,
) {
    let mut random = Random::new(number as u64);
    for number in 0..batches + AHEAD {
        if number < batches {
            send(next, || size(&mut random));
        }
        if number >= AHEAD
            && let Ok(batch) = previous.recv()
        {
            batch.iter().for_each(|held| held.free(&mut Global));
        }
    }
}

fn send(next: &SyncSender<Batch>, mut size: impl FnMut() -> usize) {
    let batch = [(); BATCH].map(|()| Held::new(&mut Global, size()));
    // The next thread lives until it has received every batch, so sending cannot fail.
    let _ = next.send(batch);
}
