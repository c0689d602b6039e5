use std::ops::RangeInclusive;

use proptest::{prelude::*, test_runner::TestRng};

use crate::reference::Rules;

/// Ranges of sizes in bytes, each of which is chosen equally often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(pub(super) Vec<RangeInclusive<usize>>);

impl Sizes {
    /// Returns the given sizes, each of which is chosen equally often.
    pub fn of(sizes: impl IntoIterator<Item = usize>) -> Self {
        Self(sizes.into_iter().map(|size| size..=size).collect())
    }

    /// Returns a strategy for one to three sizes. They use few size classes, so each class
    /// repeatedly gains and loses pools.
    fn few(rules: &Rules) -> impl Strategy<Value = Self> + use<> {
        prop::collection::vec(1..=rules.threshold, 1..=3).prop_map(Self::of)
    }

    /// Returns ranges from 0 bytes to sizes too large for a pool. Most sizes are small.
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

    /// Returns a strategy for either one to three sizes or those of [`many`](Self::many).
    pub fn any(rules: &Rules) -> impl Strategy<Value = Self> + use<> {
        prop_oneof![Self::few(rules), Just(Self::many(rules))]
    }

    pub(super) fn draw(&self, rng: &mut TestRng) -> usize {
        let range = &self.0[rng.random_range(0..self.0.len())];
        rng.random_range(range.clone())
    }

    pub(super) fn mean(&self) -> usize {
        let sum: usize = self.0.iter().map(|range| range.start().midpoint(*range.end())).sum();
        sum / self.0.len()
    }
}
