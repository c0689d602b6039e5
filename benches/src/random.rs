//! Pseudorandom numbers that are the same in every run.

/// Marsaglia's xorshift generator with 64 bits of state.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Returns the next number below `bound`, which is at most 2^32.
    #[inline(always)]
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // A multiplication is cheaper than a remainder.
        (((self.0 >> 32) * bound as u64) >> 32) as usize
    }

    /// Returns the next random size between `from` and `to` bytes, inclusive.
    #[inline(always)]
    pub(crate) fn size(&mut self, from: usize, to: usize) -> usize {
        from + self.below(to - from + 1)
    }

    /// Returns the next size of at least `2^from` and less than `2^to` bytes.
    ///
    /// Each power of two is equally likely. Between two powers of two, the sizes are distributed
    /// uniformly.
    #[inline(always)]
    pub(crate) fn log_uniform(&mut self, from: usize, to: usize) -> usize {
        let least = 1 << (from + self.below(to - from));
        least + self.below(least)
    }

    /// Returns the numbers from 0 to `count - 1` in a random order.
    pub(crate) fn order(&mut self, count: usize) -> Vec<u32> {
        let mut order: Vec<_> = (0..count as u32).collect();
        for last in (1..count).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_include_both_ends_and_nothing_beyond() {
        let mut random = Random::new(1);
        let sizes: Vec<_> = (0..100_000).map(|_| random.size(1, 512)).collect();
        assert_eq!((sizes.iter().min(), sizes.iter().max()), (Some(&1), Some(&512)));
    }

    #[test]
    fn each_power_of_two_is_equally_likely() {
        let mut random = Random::new(1);
        let sizes: Vec<_> = (0..120_000).map(|_| random.log_uniform(4, 16)).collect();
        for power in 4..16 {
            let count = sizes.iter().filter(|size| size.ilog2() == power).count();
            assert!((9_500..10_500).contains(&count), "2^{power}: {count}");
        }
    }

    #[test]
    fn a_random_order_has_each_number_once() {
        let mut order = Random::new(2).order(1000);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }
}
