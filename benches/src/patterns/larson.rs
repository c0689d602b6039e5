//! larson: a server whose threads come and go, and whose blocks outlive them.
//!
//! ```text
//!   a line    ├─ thread ─┤├─ thread ─┤├─ thread ─┤├─ thread ─┤     one ends, then the next starts
//!   its slots ──────────────────────────────────────────────────►  freed by whom they pass to
//! ```

use std::thread;

use crate::{contender::Held, contenders::Global, pin, random::Random, workload::Taken};

/// Blocks of a thread that are live at once.
const SLOTS: usize = 1_000;

/// Replacements until a thread ends.
const REPLACED: usize = 100_000;

/// Threads that follow each other on the same slots.
const GENERATIONS: usize = 4;

/// Blocks of 8 to 512 bytes replace others at random; the slots pass to a new thread, which frees
/// what it did not allocate.
pub(super) fn bleeding<const THREADS: usize>(_: &mut Global) -> Taken {
    let mut lines: Vec<_> = (0..THREADS).map(Line::new).collect();
    let taken = Taken::together(THREADS * GENERATIONS * REPLACED, || {
        thread::scope(|scope| {
            for line in &mut lines {
                scope.spawn(|| one_after_the_other(GENERATIONS, || line.live()));
            }
        });
    });
    lines.iter().flat_map(|line| &line.slots).for_each(|held| held.free(&mut Global));
    taken
}

/// Runs `life` on so many threads, each of which has ended, with all that is the thread's own,
/// before the next starts.
fn one_after_the_other(generations: usize, mut life: impl FnMut() + Send) {
    for _ in 0..generations {
        thread::scope(|scope| {
            // The end of the scope alone would wait for `life`, but not for the thread's end. A
            // panic has ended the process: the workers are compiled so.
            let _ = scope.spawn(&mut life).join();
        });
    }
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

    /// What a thread does.
    fn live(&mut self) {
        pin::to_processor(self.number);
        for _ in 0..REPLACED {
            let slot = &mut self.slots[self.random.below(SLOTS)];
            slot.free(&mut Global);
            *slot = Held::new(&mut Global, self.random.size(8, 512));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;

    static ENDED: AtomicUsize = AtomicUsize::new(0);

    /// The last of a thread; it takes its time, so that a hasty successor is seen.
    struct End;

    impl Drop for End {
        fn drop(&mut self) {
            thread::sleep(Duration::from_millis(10));
            ENDED.fetch_add(1, Ordering::Relaxed);
        }
    }

    thread_local!(static END: End = const { End });

    #[test]
    fn a_thread_has_ended_before_the_next_of_its_line_starts() {
        let mut ended = Vec::new();
        one_after_the_other(GENERATIONS, || {
            ended.push(ENDED.load(Ordering::Relaxed));
            END.with(|_| ());
        });
        assert_eq!(ended, (0..GENERATIONS).collect::<Vec<_>>());
    }
}
