//! The block sizes that a workload requests.

use std::ops::RangeInclusive;

use proptest::{prelude::*, test_runner::TestRng};

use crate::reference::Rules;

/// Ranges of requested sizes, in bytes. To draw a size, one of the ranges is chosen first, each
/// with the same probability. Then a size in that range is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(pub(super) Vec<RangeInclusive<usize>>);

impl Sizes {
    /// Returns the given sizes as the only possible ones, each with the same probability.
    pub fn of(sizes: impl IntoIterator<Item = usize>) -> Self {
        Self(sizes.into_iter().map(|size| size..=size).collect())
    }

    /// Returns a strategy that generates one to three sizes. With so few sizes, all blocks belong
    /// to a few size classes, and each of these classes repeatedly gains and loses pools.
    fn few(rules: &Rules) -> impl Strategy<Value = Self> + use<> {
        prop::collection::vec(1..=rules.threshold, 1..=3).prop_map(Self::of)
    }

    /// Returns ranges that cover all sizes. Most sizes are small. Some are 0, some lie at the
    /// limits that `rules` define, and some are too large for the pools.
    pub fn many(rules: &Rules) -> Self {
        let (step, most) = (rules.alignment, rules.threshold);
        Self(vec![
            1..=most,
            1..=most,
            1..=4 * step,
            0..=step + 1,
            most - 1..=most + 1,
            most..=4 * most,
        ])
    }

    /// Returns a strategy that generates either one to three sizes or the ranges of
    /// [`many`](Self::many).
    pub fn any(rules: &Rules) -> impl Strategy<Value = Self> + use<> {
        prop_oneof![Self::few(rules), Just(Self::many(rules))]
    }

    pub(super) fn draw(&self, rng: &mut TestRng) -> usize {
        let range = &self.0[rng.random_range(0..self.0.len())];
        rng.random_range(range.clone())
    }

    /// Returns the approximate mean of the sizes.
    pub(super) fn mean(&self) -> usize {
        let sum: usize = self.0.iter().map(|range| range.start().midpoint(*range.end())).sum();
        sum / self.0.len()
    }
}
