//! The live blocks of a workload.

use crate::{contender::Held, contenders::Global, random::Random};

/// Live blocks, which are freed together at the end.
#[derive(Debug)]
pub(super) struct Blocks {
    live: Vec<Held>,
    bytes: usize,
}

impl Blocks {
    /// Creates an empty list with room for `most` blocks, so that it never grows.
    pub(super) fn with_room(most: usize) -> Self {
        Self { live: Vec::with_capacity(most), bytes: 0 }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Held> {
        self.live.iter()
    }

    pub(super) fn add(&mut self, size: usize) {
        let held = Held::new(&mut Global, size);
        held.write_pages();
        self.push(held);
    }

    /// Adds blocks of sizes that are typical of programs, until there are `bytes` bytes.
    pub(super) fn fill(&mut self, bytes: usize, random: &mut Random) {
        while self.bytes < bytes {
            self.add(mixed(random));
        }
    }

    /// Frees the blocks for which `stays` returns false, and moves the others to `kept`.
    pub(super) fn keep(&mut self, kept: &mut Self, mut stays: impl FnMut(usize) -> bool) {
        self.bytes = 0;
        for (place, held) in self.live.drain(..).enumerate() {
            if stays(place) {
                kept.push(held);
            } else {
                held.free(&mut Global);
            }
        }
    }

    /// Frees all blocks.
    pub(super) fn clear(&mut self) {
        self.bytes = 0;
        self.live.drain(..).for_each(|held| held.free(&mut Global));
    }

    /// Frees the oldest blocks until `most` are left.
    pub(super) fn forget(&mut self, most: usize) {
        let excess = self.live.len().saturating_sub(most);
        for held in self.live.drain(..excess) {
            self.bytes -= held.size();
            held.free(&mut Global);
        }
    }

    /// Frees a random block and returns its size.
    pub(super) fn free_any(&mut self, random: &mut Random) -> usize {
        let held = self.live.swap_remove(random.below(self.live.len()));
        self.bytes -= held.size();
        held.free(&mut Global);
        held.size()
    }

    fn push(&mut self, held: Held) {
        self.bytes += held.size();
        self.live.push(held);
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Returns a size from a mixture that is typical of programs: most blocks are small, but most bytes
/// are in large blocks.
fn mixed(random: &mut Random) -> usize {
    match random.below(100) {
        0..70 => random.size(16, 128),
        70..95 => random.size(129, 512),
        95..99 => random.log_uniform(9, 13),
        _ => random.log_uniform(13, 16),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_live_blocks() {
        let mut random = Random::new(1);
        let (mut blocks, mut kept) = (Blocks::with_room(10_000), Blocks::with_room(10_000));
        let sum = |blocks: &Blocks| blocks.iter().map(|held| held.size()).sum::<usize>();
        blocks.fill(1 << 20, &mut random);
        assert!(blocks.bytes() >= 1 << 20 && blocks.bytes() == sum(&blocks));
        blocks.free_any(&mut random);
        assert_eq!(blocks.bytes(), sum(&blocks));
        let count = blocks.len();
        blocks.keep(&mut kept, |place| place % 10 == 0);
        assert_eq!((blocks.len(), kept.len()), (0, count.div_ceil(10)));
        kept.forget(5);
        assert_eq!((kept.len(), kept.bytes()), (5, sum(&kept)));
    }
}
