//! Counts of tests that passed or failed, and of steps that were skipped.

use std::{fmt, iter::Sum, ops::Add, process::Command};

use anyhow::Result;

use crate::process;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// The number of steps that were skipped because this machine lacks something.
    pub(crate) skipped: usize,
}

impl Tally {
    pub(crate) const fn of(passed: usize, failed: usize) -> Self {
        Self { passed, failed, skipped: 0 }
    }

    pub(crate) fn one(passed: bool) -> Self {
        Self::of(usize::from(passed), usize::from(!passed))
    }

    pub(crate) fn skipped(reason: impl fmt::Display) -> Self {
        println!("      SKIPPED: {reason}");
        Self { skipped: 1, ..Self::default() }
    }

    /// Runs `command` and counts the tests that it ran. A command that ran no tests counts as one
    /// test itself.
    pub(crate) fn of_command(command: Command) -> Result<Self> {
        let finished = process::run(command, |line| {
            let line = line.trim();
            if line.starts_with("Running ") || line.starts_with("Doc-tests ") {
                println!("      {line}");
            }
        })?;
        if !finished.success {
            println!("{}", finished.output);
        }
        let tally = Self::of_output(&finished.output);
        Ok(match (finished.success, tally) {
            (true, Self { passed: 0, failed: 0, .. }) => Self::one(true),
            (false, Self { failed: 0, .. }) => tally + Self::one(false),
            (_, tally) => tally,
        })
    }

    /// Adds up the lines `test result: ok. 3 passed; 0 failed; …` that cargo printed.
    pub(crate) fn of_output(output: &str) -> Self {
        let results = output.lines().filter_map(|line| line.trim().strip_prefix("test result: "));
        results.map(|result| Self::of(before(result, " passed"), before(result, " failed"))).sum()
    }
}

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
    fn the_result_lines_of_cargo_are_summed_up() {
        let output = "running 3 tests\n\
                      test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
                      test result: FAILED. 12 passed; 2 failed; 0 ignored; 0 measured\n";
        assert_eq!(Tally::of_output(output), Tally::of(15, 2));
        assert_eq!(Tally::of_output("no tests"), Tally::default());
    }

    #[test]
    fn a_skipped_step_is_printed_beside_the_tests() {
        let tally = Tally::one(true) + Tally::skipped("there is no such tool");
        assert_eq!(tally.to_string(), "1 passed, 0 failed, 1 step SKIPPED");
    }
}
