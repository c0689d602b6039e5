//! Takes samples of the memory of this process.

use std::{
    mem::MaybeUninit,
    time::{Duration, Instant},
};

use memmap2::MmapMut;

use super::{
    blocks::Blocks,
    curve::{Curve, Sample},
};
use crate::resident::resident;

/// The bytes of a page.
const PAGE: usize = 4096;

/// The largest number of samples of a run. Their list must not grow, because the allocator is under
/// test.
const MOST: usize = 4_096;

#[derive(Debug)]
pub(super) struct Recorder {
    start: Instant,
    /// The processor time that taking samples has needed.
    spent: Duration,
    samples: Vec<Sample>,
    trim: Option<fn()>,
}

impl Recorder {
    pub(super) fn new(trim: Option<fn()>) -> Self {
        let samples = Vec::with_capacity(MOST);
        Self { start: Instant::now(), spent: Duration::ZERO, samples, trim }
    }

    /// Returns unused memory to the system, if this run trims.
    pub(super) fn trim(&self) {
        if let Some(trim) = self.trim {
            trim();
        }
    }

    /// Takes a sample. `live` must contain all live blocks. Also counts the pages with live blocks.
    pub(super) fn count(&mut self, live: &[&Blocks]) {
        let at = self.start.elapsed().as_secs_f64();
        self.count_at(at, live);
    }

    /// Takes a sample at the time `at`, which need not be the real time.
    pub(super) fn count_at(&mut self, at: f64, live: &[&Blocks]) {
        let before = processor_time();
        let resident = resident("VmRSS:");
        let bytes: usize = live.iter().map(|blocks| blocks.bytes()).sum();
        let pages = Some((pages(live) * PAGE) as u64);
        self.samples.push(Sample { at, live: bytes as u64, pages, resident });
        self.spent += processor_time() - before;
    }

    /// Takes a sample of the resident memory alone.
    pub(super) fn glance(&mut self, live: usize) {
        let before = processor_time();
        let at = self.start.elapsed().as_secs_f64();
        let resident = resident("VmRSS:");
        self.samples.push(Sample { at, live: live as u64, pages: None, resident });
        self.spent += processor_time() - before;
    }

    pub(super) fn finish(self) -> Curve {
        let seconds = (processor_time() - self.spent).as_secs_f64();
        Curve { samples: self.samples, seconds }
    }
}

/// Returns the number of pages that hold a part of a live block.
///
/// The list of pages has a mapping of its own, so that it does not affect the allocator.
fn pages(live: &[&Blocks]) -> usize {
    let held = || live.iter().flat_map(|blocks| blocks.iter());
    let of = |start: usize, size: usize| start / PAGE..=(start + size - 1) / PAGE;
    let all = || held().flat_map(|held| of(held.start().addr(), held.size()));
    let count = all().count();
    if count == 0 {
        return 0;
    }
    let Ok(mut list) = MmapMut::map_anon(count * size_of::<u64>()) else { return 0 };
    let (numbers, _) = list.as_chunks_mut::<8>();
    for (number, page) in numbers.iter_mut().zip(all()) {
        *number = page.to_be_bytes();
    }
    numbers.sort_unstable();
    1 + numbers.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

/// Returns the processor time of all threads of this process.
fn processor_time() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the pointer is valid for writing a `timespec`.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, time.as_mut_ptr()) };
    // SAFETY: zero is a valid value for both numbers of a `timespec`.
    let time = unsafe { time.assume_init() };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_with_several_blocks_counts_once() {
        let mut blocks = Blocks::with_room(10_000);
        (0..10_000).for_each(|_| blocks.add(64));
        let pages = pages(&[&blocks]);
        // The blocks fill 157 pages if nothing lies between them.
        assert!((157..10_000).contains(&pages), "{pages}");
    }

    #[test]
    fn a_block_counts_every_page_that_it_touches() {
        let mut blocks = Blocks::with_room(1);
        blocks.add(10 * PAGE);
        assert!((10..=11).contains(&pages(&[&blocks])));
        blocks.clear();
        assert_eq!(pages(&[&blocks]), 0);
    }
}
