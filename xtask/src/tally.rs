//! Tests passed and failed.

use std::{fmt, iter::Sum, ops::Add};

/// A count of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

impl Tally {
    /// One test, passed or not.
    pub(crate) fn one(passed: bool) -> Self {
        Self { passed: usize::from(passed), failed: usize::from(!passed) }
    }

    /// The sum of the lines `test result: ok. 3 passed; 0 failed; …` in what cargo printed.
    pub(crate) fn of_cargo(output: &str) -> Self {
        let results = output.lines().filter_map(|line| line.trim().strip_prefix("test result: "));
        results
            .map(|result| Self {
                passed: before(result, " passed"),
                failed: before(result, " failed"),
            })
            .sum()
    }
}

/// The number that stands before `word`.
fn before(text: &str, word: &str) -> usize {
    let number = text.find(word).and_then(|end| text[..end].split_whitespace().last());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { passed: self.passed + other.passed, failed: self.failed + other.failed }
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), Self::add)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_result_lines_are_summed() {
        let output = "running 3 tests\n\
                      test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
                      test result: FAILED. 12 passed; 2 failed; 0 ignored; 0 measured\n";
        assert_eq!(Tally::of_cargo(output), Tally { passed: 15, failed: 2 });
        assert_eq!(Tally::of_cargo("no tests"), Tally::default());
    }
}
