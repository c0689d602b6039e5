//! larson: a server whose threads come and go, and whose blocks outlive them.

use std::thread;

use super::pin::to_processor;
use crate::{contender::Held, contenders::Global, random::Random, workload::Taken};

/// Blocks of a thread that are live at once.
const SLOTS: usize = 1_000;

/// Replacements until a thread ends.
const REPLACED: usize = 100_000;

/// Threads that follow each other on the same slots.
const GENERATIONS: usize = 4;

/// Blocks of 8 to 512 bytes replace others at random; the slots pass to a new thread, which frees
/// what it did not allocate.
pub(super) fn bleeding<const THREADS: usize>(_: &mut Global) -> Taken {
    let lines: Vec<_> = (0..THREADS).map(Line::new).collect();
    Taken::together(THREADS * GENERATIONS * REPLACED, || {
        let run = |line: Line| thread::spawn(move || line.live(GENERATIONS));
        let threads: Vec<_> = lines.into_iter().map(run).collect();
        threads.into_iter().for_each(join);
    })
}

/// Slots that are handed on, and how they go on.
struct Line {
    number: usize,
    slots: Vec<Held>,
    random: Random,
}

impl Line {
    fn new(number: usize) -> Self {
        let mut random = Random::new(number as u64);
        let slots = (0..SLOTS).map(|_| Held::new(&mut Global, random.size(8, 512))).collect();
        Self { number, slots, random }
    }

    /// What a thread does; then one comes after it, or the slots are freed.
    fn live(mut self, generations: usize) {
        to_processor(self.number);
        for _ in 0..REPLACED {
            let slot = &mut self.slots[self.random.below(SLOTS)];
            slot.free(&mut Global);
            *slot = Held::new(&mut Global, self.random.size(8, 512));
        }
        if generations > 1 {
            join(thread::spawn(move || self.live(generations - 1)));
        } else {
            self.slots.iter().for_each(|held| held.free(&mut Global));
        }
    }
}

fn join(thread: thread::JoinHandle<()>) {
    // A panic has ended the process: the workers are compiled so.
    let _ = thread.join();
}
