//! The pattern larson: a server whose threads end while their blocks are still in use.

use std::thread;

use crate::{contender::Held, contenders::Global, pin, random::Random, workload::Taken};

const SLOTS: usize = 1_000;

const REPLACED: usize = 100_000;

const GENERATIONS: usize = 4;

/// Replaces random blocks by blocks of 8 to 512 bytes, some of which an earlier thread allocated.
pub(super) fn bleeding<const THREADS: usize>(_: &mut Global) -> Taken {
    replaced::<THREADS>(|random| random.size(8, 512))
}

/// Does the same with blocks of 16 bytes to 64 KiB.
pub(super) fn mixed<const THREADS: usize>(_: &mut Global) -> Taken {
    replaced::<THREADS>(|random| random.log_uniform(4, 16))
}

fn replaced<const THREADS: usize>(size: impl Fn(&mut Random) -> usize + Sync) -> Taken {
    let mut lines: Vec<_> = (0..THREADS).map(|number| Line::new(number, &size)).collect();
    let taken = Taken::together(THREADS * GENERATIONS * REPLACED, || {
        thread::scope(|scope| {
            for line in &mut lines {
                scope.spawn(|| one_after_the_other(GENERATIONS, || line.live(&size)));
            }
        });
    });
    lines.iter().flat_map(|line| &line.slots).for_each(|held| held.free(&mut Global));
    taken
}

fn one_after_the_other(generations: usize, mut life: impl FnMut() + Send) {
    for _ in 0..generations {
        thread::scope(|scope| {
            // `join` also waits for destructors of thread-locals. A panic would end the process.
            let _ = scope.spawn(&mut life).join();
        });
    }
}

/// Slots that are taken over by one thread after another.
struct Line {
    number: usize,
    slots: Vec<Held>,
    random: Random,
}

impl Line {
    fn new(number: usize, size: impl Fn(&mut Random) -> usize) -> Self {
        let mut random = Random::new(number as u64);
        let slots = (0..SLOTS).map(|_| Held::new(&mut Global, size(&mut random))).collect();
        Self { number, slots, random }
    }

    fn live(&mut self, size: impl Fn(&mut Random) -> usize) {
        pin::to_processor(self.number);
        // Each iteration changes the generator, so we keep it on the thread's stack. In `self`, two
        // threads could write to the same cache line, depending on where the allocator under test
        // puts the vector of all `Line`s.
        let mut random = self.random.clone();
        for _ in 0..REPLACED {
            let slot = &mut self.slots[random.below(SLOTS)];
            slot.free(&mut Global);
            *slot = Held::new(&mut Global, size(&mut random));
        }
        self.random = random;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;
    use crate::patterns::threads::is_on_this_stack;

    /// Regression test: the generators were in the vector of all `Line`s. The address of this
    /// vector determined whether two threads wrote to the same cache line.
    #[test]
    fn the_random_numbers_of_a_thread_lie_on_its_stack() {
        let mut line = Box::new(Line::new(0, |_| 8));
        line.live(|random| if is_on_this_stack(random) { 8 } else { panic!("in the box") });
        line.slots.iter().for_each(|held| held.free(&mut Global));
    }

    static ENDED: AtomicUsize = AtomicUsize::new(0);

    /// A thread-local with a slow destructor, which exposes threads that start too early.
    struct End;

    impl Drop for End {
        fn drop(&mut self) {
            thread::sleep(Duration::from_millis(10));
            ENDED.fetch_add(1, Ordering::Relaxed);
        }
    }

    thread_local!(static END: End = const { End });

    #[test]
    fn a_thread_has_ended_before_the_next_one_starts() {
        let mut ended = Vec::new();
        one_after_the_other(GENERATIONS, || {
            ended.push(ENDED.load(Ordering::Relaxed));
            END.with(|_| ());
        });
        assert_eq!(ended, (0..GENERATIONS).collect::<Vec<_>>());
    }
}
