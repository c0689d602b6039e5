//! The pools of the model, which are carved into blocks one by one.

use super::rules::{HEADER, Rules};

/// A pool that has been used for a size class at least once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The size class of the pool. An empty pool keeps its last class.
    pub class: usize,
    /// The number of live blocks in the pool.
    pub live: usize,
    /// The offsets of the free blocks carved so far. The last one is allocated first.
    pub free: Vec<usize>,
    /// The offset in the pool at which the next block will be carved.
    pub next_offset: usize,
}

impl Pool {
    pub(super) fn fresh(class: usize, rules: &Rules) -> Self {
        let next_offset = HEADER + rules.block_size(class);
        Self { class, live: 0, free: vec![HEADER], next_offset }
    }

    /// Allocates a block and returns its offset. If no free block is left, carves another one.
    pub(super) fn take(&mut self, rules: &Rules) -> usize {
        let offset = self.free.pop().expect("only a pool with a free block serves");
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

    pub(super) fn put(&mut self, offset: usize) {
        self.live -= 1;
        self.free.push(offset);
    }

    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules::POOLS_16K;

    #[test]
    fn a_pool_is_carved_one_block_ahead() {
        let mut pool = Pool::fresh(31, &RULES);
        assert_eq!(pool.take(&RULES), 48);
        assert_eq!((pool.free.as_slice(), pool.next_offset), ([560].as_slice(), 1072));
        assert_eq!(pool.take(&RULES), 560);
        assert_eq!((pool.free.as_slice(), pool.next_offset), ([1072].as_slice(), 1584));
    }

    #[test]
    fn the_block_freed_last_is_taken_first() {
        let mut pool = Pool::fresh(0, &RULES);
        let blocks = [pool.take(&RULES), pool.take(&RULES)];
        pool.put(blocks[1]);
        pool.put(blocks[0]);
        assert_eq!([pool.take(&RULES), pool.take(&RULES)], blocks);
    }

    #[test]
    fn a_pool_is_full_exactly_when_all_its_blocks_are_live() {
        let mut pool = Pool::fresh(31, &RULES);
        for _ in 0..RULES.capacity(31) {
            assert!(!pool.is_full());
            pool.take(&RULES);
        }
        assert!(pool.is_full());
    }
}
