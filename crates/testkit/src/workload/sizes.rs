//! Which sizes a workload asks for.

use std::ops::RangeInclusive;

use proptest::{prelude::*, test_runner::TestRng};

use crate::reference::Rules;

/// Which sizes are asked for: each range is as likely as the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(pub(super) Vec<RangeInclusive<usize>>);

impl Sizes {
    /// These sizes alone.
    pub fn of(sizes: impl IntoIterator<Item = usize>) -> Self {
        Self(sizes.into_iter().map(|size| size..=size).collect())
    }

    /// Sizes of a few classes of `rules`, so that pools of the same class come and go.
    pub fn few(rules: &Rules) -> impl Strategy<Value = Self> + use<> {
        prop::collection::vec(1..=rules.threshold, 1..=3).prop_map(Self::of)
    }

    /// All sizes: mostly small ones, the edges of `rules`, 0 bytes, and some for the layer below.
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

    /// Few classes or many.
    pub fn any(rules: &Rules) -> impl Strategy<Value = Self> + use<> {
        prop_oneof![Self::few(rules), Just(Self::many(rules))]
    }

    pub(super) fn draw(&self, rng: &mut TestRng) -> usize {
        let range = &self.0[rng.random_range(0..self.0.len())];
        rng.random_range(range.clone())
    }
    /// The mean of what is drawn, in bytes.
    pub(super) fn mean(&self) -> usize {
        let sum: usize = self.0.iter().map(|range| range.start().midpoint(*range.end())).sum();
        sum / self.0.len()
    }
}
