//! A pool: blocks of one size, some carved, some not yet.

use super::rules::{HEADER, Rules};

/// A pool that has had a class at least once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The class it has, or had when it was last in use.
    pub class: usize,
    /// How many of its blocks are live.
    pub live: usize,
    /// Offsets of the carved blocks that are not live, the next to go last.
    pub free: Vec<usize>,
    /// Offset of the next block to carve.
    pub next_offset: usize,
}

impl Pool {
    /// A pool with nothing but its first block carved, for a new `class`. Taking from it carves
    /// the second.
    pub(super) fn fresh(class: usize, rules: &Rules) -> Self {
        let next_offset = HEADER + rules.block_size(class);
        Self { class, live: 0, free: vec![HEADER], next_offset }
    }

    /// Hands out a block, and carves one more if that was the last one carved.
    pub(super) fn take(&mut self, rules: &Rules) -> usize {
        let offset = self.free.pop().expect("a pool is asked only while it has a block");
        self.live += 1;
        if self.free.is_empty() {
            self.carve(rules);
        }
        offset
    }

    fn carve(&mut self, rules: &Rules) {
        let size = rules.block_size(self.class);
        if self.next_offset + size <= rules.pool_size {
            self.free.push(self.next_offset);
            self.next_offset += size;
        }
    }

    /// Takes a block back.
    pub(super) fn put(&mut self, offset: usize) {
        self.live -= 1;
        self.free.push(offset);
    }

    /// Whether nothing is left to hand out.
    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// Whether no block is live.
    pub(super) fn is_empty(&self) -> bool {
        self.live == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules::POOLS_16K;

    #[test]
    fn a_pool_is_carved_one_block_ahead_of_what_is_asked() {
        let mut pool = Pool::fresh(31, &RULES);
        assert_eq!(pool.take(&RULES), 48);
        assert_eq!((pool.free.as_slice(), pool.next_offset), ([560].as_slice(), 1072));
        assert_eq!(pool.take(&RULES), 560);
        assert_eq!((pool.free.as_slice(), pool.next_offset), ([1072].as_slice(), 1584));
    }

    #[test]
    fn the_block_freed_last_goes_first() {
        let mut pool = Pool::fresh(0, &RULES);
        let blocks = [pool.take(&RULES), pool.take(&RULES)];
        pool.put(blocks[1]);
        pool.put(blocks[0]);
        assert_eq!([pool.take(&RULES), pool.take(&RULES)], blocks);
    }

    #[test]
    fn a_pool_is_full_exactly_when_its_capacity_is_live() {
        let mut pool = Pool::fresh(31, &RULES);
        for _ in 0..RULES.capacity(31) {
            assert!(!pool.is_full());
            pool.take(&RULES);
        }
        assert!(pool.is_full());
    }
}
