//! A long run with a constant number of live bytes, which shows whether memory use grows over time.
//!
//! Random blocks are replaced by new blocks of 1 byte to 4 MiB, so that the total size stays just
//! below 256 MiB. We write to one byte of each page of a block, so every live page is resident.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::{contender::Held, contenders::Global, random::Random, resident::resident};

/// The number of live bytes that the run never exceeds.
const LIVE: usize = 256 << 20;

/// The powers of two between which the sizes lie: 1 byte and 4 MiB.
const SIZES: (usize, usize) = (0, 22);

/// The number of intervals into which a run is divided.
const INTERVALS: u32 = 20;

/// The time between two readings of the resident memory.
const BETWEEN: Duration = Duration::from_millis(50);

/// The resident memory during one interval, divided by the live bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The time from the start of the run to the end of the interval, in seconds.
    pub end: f64,
    /// The mean of all readings.
    pub mean: f64,
    /// The largest reading.
    pub most: f64,
}

/// Replaces blocks for `duration`, which begins when the live bytes are first reached.
pub fn run(duration: Duration) -> Vec<Interval> {
    let mut blocks = Blocks::new(LIVE);
    blocks.fill();
    let start = Instant::now();
    (1..=INTERVALS)
        .map(|number| interval(&mut blocks, start, duration * number / INTERVALS))
        .collect()
}

/// Replaces blocks until `end` has elapsed since `start`.
fn interval(blocks: &mut Blocks, start: Instant, end: Duration) -> Interval {
    let (mut sum, mut most, mut readings) = (0.0, 0.0_f64, 0);
    while readings == 0 || start.elapsed() < end {
        let next = Instant::now() + BETWEEN;
        while Instant::now() < next {
            blocks.replace();
        }
        let ratio = resident("VmRSS:") as f64 / blocks.bytes as f64;
        (sum, most, readings) = (sum + ratio, most.max(ratio), readings + 1);
    }
    Interval { end: end.as_secs_f64(), mean: sum / f64::from(readings), most }
}

struct Blocks {
    live: Vec<Held>,
    bytes: usize,
    most: usize,
    random: Random,
}

impl Blocks {
    fn new(most: usize) -> Self {
        // The vector must not grow during the run, because it is not one of the blocks.
        Self { live: Vec::with_capacity(1 << 16), bytes: 0, most, random: Random::new(5) }
    }

    /// Allocates blocks until the next one would exceed the limit.
    fn fill(&mut self) {
        let mut size = self.next_size();
        while self.bytes + size <= self.most {
            self.add(size);
            size = self.next_size();
        }
    }

    /// Frees random blocks until a new one fits, and allocates it.
    fn replace(&mut self) {
        let size = self.next_size();
        while self.bytes + size > self.most {
            let place = self.random.below(self.live.len());
            let held = self.live.swap_remove(place);
            self.bytes -= held.size();
            held.free(&mut Global);
        }
        self.add(size);
    }

    fn next_size(&mut self) -> usize {
        self.random.log_uniform(SIZES.0, SIZES.1)
    }

    fn add(&mut self, size: usize) {
        let held = Held::new(&mut Global, size);
        held.write_pages();
        self.bytes += size;
        self.live.push(held);
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.live.drain(..).for_each(|held| held.free(&mut Global));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_live_bytes_stay_just_below_the_limit() {
        let limit = 32 << 20;
        let mut blocks = Blocks::new(limit);
        blocks.fill();
        for _ in 0..1_000 {
            blocks.replace();
            assert_eq!(blocks.bytes, blocks.live.iter().map(|held| held.size()).sum::<usize>());
            assert!(blocks.bytes <= limit && blocks.bytes > limit - (8 << 20), "{}", blocks.bytes);
        }
    }
}
