//! Tests passed and failed, and steps that could not be taken.

use std::{fmt, iter::Sum, ops::Add};

/// A count of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Steps that this machine lacks something for.
    pub(crate) skipped: usize,
}

impl Tally {
    /// Tests that were run.
    pub(crate) const fn of(passed: usize, failed: usize) -> Self {
        Self { passed, failed, skipped: 0 }
    }

    /// One test, passed or not.
    pub(crate) fn one(passed: bool) -> Self {
        Self::of(usize::from(passed), usize::from(!passed))
    }

    /// One step that is not taken, and why, which is printed.
    pub(crate) fn skipped(why: impl fmt::Display) -> Self {
        println!("      SKIPPED: {why}");
        Self { skipped: 1, ..Self::default() }
    }

    /// The sum of the lines `test result: ok. 3 passed; 0 failed; …` in what cargo printed.
    pub(crate) fn of_cargo(output: &str) -> Self {
        let results = output.lines().filter_map(|line| line.trim().strip_prefix("test result: "));
        results.map(|result| Self::of(before(result, " passed"), before(result, " failed"))).sum()
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
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), Self::add)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        match self.skipped {
            0 => Ok(()),
            1 => f.write_str(", 1 step SKIPPED"),
            steps => write!(f, ", {steps} steps SKIPPED"),
        }
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
        assert_eq!(Tally::of_cargo(output), Tally::of(15, 2));
        assert_eq!(Tally::of_cargo("no tests"), Tally::default());
    }

    #[test]
    fn a_skipped_step_is_told_beside_the_tests() {
        let tally = Tally::one(true) + Tally::skipped("there is no such tool");
        assert_eq!(tally.to_string(), "1 passed, 0 failed, 1 step SKIPPED");
    }
}
