//! The workloads. Each takes samples before, during and after its peaks.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use super::{blocks::Blocks, recorder::Recorder};
use crate::random::Random;

const MIB: usize = 1 << 20;

/// The largest number of blocks that a workload has at the same time.
const ROOM: usize = 600_000;

/// A pause in which a program does little, so that memory may decay.
const PAUSE: Duration = Duration::from_millis(20);

/// Repeatedly builds 64 MiB in addition to a base of 32 MiB, and drops it except for 1 block in
/// 10,000.
pub(super) fn rounds(recorder: &mut Recorder) {
    let mut random = Random::new(1);
    let mut base = Blocks::with_room(ROOM);
    let (mut built, mut kept) = (Blocks::with_room(ROOM), Blocks::with_room(ROOM));
    base.fill(32 * MIB, &mut random);
    recorder.count(&[&base]);
    for _ in 0..50 {
        built.fill(64 * MIB, &mut random);
        recorder.glance(base.bytes() + built.bytes() + kept.bytes());
        built.keep(&mut kept, |place| place % 10_000 == 0);
        kept.forget(100);
        recorder.trim();
        recorder.count(&[&base, &kept]);
        idle(PAUSE);
        recorder.count(&[&base, &kept]);
    }
}

/// The blocks that a worker of a web server keeps between requests.
struct Server {
    random: Random,
    base: Blocks,
    request: Blocks,
    kept: Blocks,
}

impl Server {
    fn new() -> Self {
        let mut random = Random::new(2);
        let mut base = Blocks::with_room(ROOM);
        base.fill(48 * MIB, &mut random);
        Self { random, base, request: Blocks::with_room(ROOM), kept: Blocks::with_room(ROOM) }
    }

    /// Allocates 1 to 50 MiB, drops all but 0.1 % of the blocks, and frees blocks that are too old.
    fn serve(&mut self, recorder: &mut Recorder, glances: bool) {
        // Each power of two is equally likely.
        let bytes = self.random.log_uniform(20, 26).min(50 * MIB);
        self.request.fill(bytes, &mut self.random);
        if glances {
            recorder.glance(self.live());
        }
        let random = &mut self.random;
        self.request.keep(&mut self.kept, |_| random.below(1_000) == 0);
        self.kept.forget(1_000);
    }

    fn live(&self) -> usize {
        self.base.bytes() + self.request.bytes() + self.kept.bytes()
    }
}

/// Serves 150 requests, with a pause after every tenth request.
pub(super) fn requests(recorder: &mut Recorder) {
    let mut server = Server::new();
    recorder.count(&[&server.base]);
    for number in 1..=150 {
        server.serve(recorder, true);
        recorder.trim();
        recorder.count(&[&server.base, &server.kept]);
        if number % 10 == 0 {
            idle(PAUSE);
            recorder.count(&[&server.base, &server.kept]);
        }
    }
}

/// Serves requests for a simulated week, in which an hour takes 50 ms. At night there are hardly
/// any requests.
pub(super) fn week(recorder: &mut Recorder) {
    const HOUR: Duration = Duration::from_millis(50);
    const BY_HOUR: [usize; 24] =
        [1, 0, 0, 0, 0, 1, 2, 3, 4, 6, 6, 6, 5, 6, 6, 6, 5, 4, 4, 3, 3, 2, 2, 1];
    let mut server = Server::new();
    for hour in 0..7 * BY_HOUR.len() {
        let end = Instant::now() + HOUR;
        for _ in 0..BY_HOUR[hour % BY_HOUR.len()] {
            server.serve(recorder, false);
        }
        recorder.trim();
        idle(end.saturating_duration_since(Instant::now()));
        recorder.count_at(hour as f64, &[&server.base, &server.kept]);
    }
}

/// Builds 260 MiB of blocks of 80 bytes, of which one in `every` survives. Then does little.
pub(super) fn survivors(recorder: &mut Recorder, every: usize, at_random: bool) {
    const BLOCKS: usize = 3_400_000;
    let mut random = Random::new(3);
    let mut built = Blocks::with_room(BLOCKS);
    let mut kept = Blocks::with_room(BLOCKS);
    recorder.count(&[&kept]);
    (0..BLOCKS).for_each(|_| built.add(80));
    recorder.glance(built.bytes());
    built.keep(&mut kept, |place| match at_random {
        true => random.below(every) == 0,
        false => place % every == 0,
    });
    // The list was a block of 50 MiB.
    drop(built);
    recorder.trim();
    for _ in 0..100 {
        recorder.glance(kept.bytes());
        idle(PAUSE);
    }
    recorder.count(&[&kept]);
}

/// Repeatedly replaces 64 MiB of blocks of one size by blocks of another size, in random order.
pub(super) fn changing_sizes(recorder: &mut Recorder) {
    const SIZES: [usize; 10] = [32, 96, 48, 200, 64, 512, 160, 1_000, 80, 4_000];
    let mut random = Random::new(4);
    let (mut old, mut new) = (Blocks::with_room(64 * MIB / 32), Blocks::with_room(64 * MIB / 32));
    while old.bytes() < 64 * MIB {
        old.add(SIZES[0]);
    }
    recorder.count(&[&old]);
    for size in SIZES.into_iter().skip(1).chain([32]) {
        let step = 8 * MIB;
        let mut next = step;
        while old.len() > 0 {
            old.free_any(&mut random);
            while old.bytes() + new.bytes() + size <= 64 * MIB {
                new.add(size);
            }
            if new.bytes() >= next {
                next += step;
                recorder.trim();
                recorder.glance(old.bytes() + new.bytes());
            }
        }
        recorder.count(&[&new]);
        std::mem::swap(&mut old, &mut new);
    }
}

/// Sixteen threads build 8 MiB each, drop it, and wait for a second. They do so three times.
pub(super) fn idle_threads(recorder: &mut Recorder) {
    const THREADS: usize = 16;
    const PEAKS: usize = 3;
    let phase = Barrier::new(THREADS + 1);
    thread::scope(|scope| {
        for number in 0..THREADS {
            let phase = &phase;
            scope.spawn(move || {
                let mut random = Random::new(number as u64);
                let mut blocks = Blocks::with_room(ROOM / THREADS);
                for _ in 0..PEAKS {
                    phase.wait();
                    blocks.fill(8 * MIB, &mut random);
                    phase.wait();
                    phase.wait();
                    blocks.clear();
                    phase.wait();
                }
            });
        }
        recorder.count(&[]);
        for _ in 0..PEAKS {
            phase.wait();
            phase.wait();
            recorder.glance(THREADS * 8 * MIB);
            phase.wait();
            phase.wait();
            recorder.trim();
            for _ in 0..50 {
                recorder.count(&[]);
                idle(PAUSE);
            }
        }
    });
}

/// Waits, and then makes some small requests, like an idle program.
fn idle(duration: Duration) {
    thread::sleep(duration);
    let mut blocks = Blocks::with_room(1_000);
    (0..1_000).for_each(|_| blocks.add(100));
}
