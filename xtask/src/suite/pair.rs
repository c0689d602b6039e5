//! A test file without the library and with it, and what is not the same.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use testkit::pythons::Python;

use super::{
    files::{File, may_differ},
    outcome::{self, Outcomes},
};
use crate::tally::Tally;

/// A difference that does not repeat in this many runs is the test's own.
const RUNS: usize = 3;

/// What a pair of runs came to.
#[derive(Debug)]
pub(crate) struct Compared {
    pub(crate) tests: usize,
    /// Tests whose outcome differs each time.
    pub(crate) different: BTreeSet<String>,
    /// Those that may.
    pub(crate) permitted: BTreeSet<String>,
    /// Tests whose outcome differed once and was the same in a later run.
    pub(crate) flaky: BTreeSet<String>,
    pub(crate) took: Duration,
}

impl Compared {
    pub(crate) fn same(&self) -> usize {
        self.tests - self.different.len() - self.permitted.len()
    }

    pub(crate) fn tally(&self) -> Tally {
        Tally { passed: self.same() + self.permitted.len(), failed: self.different.len() }
    }

    pub(crate) fn print(&self, file: &str, python: &str, number: usize, count: usize) {
        let took = self.took.as_secs();
        println!("      {number}/{count} {file} on {python}: {} tests, {took} s", self.tests);
        for (tests, what) in [
            (&self.different, "DIFFERENT"),
            (&self.permitted, "differs, as it may"),
            (&self.flaky, "flaky: differed once, then was the same"),
        ] {
            tests.iter().for_each(|test| println!("        {what}: {test}"));
        }
    }
}

/// Runs `file` on both sides, again where an outcome differs.
pub(crate) fn compare(library: &Path, python: &Python, file: &File) -> Result<Compared> {
    let started = Instant::now();
    let (tests, first) = differences(library, python, file)?;
    let mut different = first.clone();
    for _ in 1..RUNS {
        if different.iter().all(|test| may_differ(test)) {
            break;
        }
        let (_, again) = differences(library, python, file)?;
        different.retain(|test| again.contains(test));
    }
    let flaky = first.difference(&different).cloned().collect();
    let (permitted, different) = different.into_iter().partition(|test| may_differ(test));
    Ok(Compared { tests, different, permitted, flaky, took: started.elapsed() })
}

/// How many tests there are, and those whose outcome is not the same.
fn differences(library: &Path, python: &Python, file: &File) -> Result<(usize, BTreeSet<String>)> {
    let (without, _) = outcome::run(python, file, None)?;
    let (with, on_our_heap) = outcome::run(python, file, Some(library))?;
    ensure!(on_our_heap, "the run with the library was not on our heap");
    Ok((without.len(), unequal(&without, &with)))
}

fn unequal(without: &Outcomes, with: &Outcomes) -> BTreeSet<String> {
    let tests = without.keys().chain(with.keys());
    tests.filter(|test| without.get(*test) != with.get(*test)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::outcome::Outcome::{Failed, Passed};

    #[test]
    fn a_test_that_is_missing_on_one_side_is_a_difference() {
        let without = Outcomes::from([("a".to_owned(), Passed), ("b".to_owned(), Failed)]);
        let with = Outcomes::from([("a".to_owned(), Passed), ("c".to_owned(), Passed)]);
        assert!(unequal(&without, &with).iter().eq(["b", "c"]));
        assert!(unequal(&without, &without).is_empty());
    }
}
