//! The sizes that a workload requests.

use std::ops::RangeInclusive;

use proptest::{prelude::*, test_runner::TestRng};

use crate::reference::Rules;

/// Ranges of requested sizes, in bytes. A size is drawn by choosing a range first, each with the
/// same probability, and then a size in that range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(pub(super) Vec<RangeInclusive<usize>>);

impl Sizes {
    /// Returns a choice between exactly these sizes.
    pub fn of(sizes: impl IntoIterator<Item = usize>) -> Self {
        Self(sizes.into_iter().map(|size| size..=size).collect())
    }

    /// Returns a strategy for one to three sizes. With so few size classes, each class repeatedly
    /// gains and loses pools.
    fn few(rules: &Rules) -> impl Strategy<Value = Self> + use<> {
        prop::collection::vec(1..=rules.threshold, 1..=3).prop_map(Self::of)
    }

    /// Returns a choice between all sizes, most of which are small. Some sizes are 0, at the limits
    /// of `rules`, or too large for the pools.
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

    /// Returns a strategy that generates one to three sizes, or [`many`](Self::many).
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
