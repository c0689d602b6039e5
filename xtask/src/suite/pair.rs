//! Compares the outcomes of a test file with our library and without it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use testkit::pythons::Python;

use super::{
    attempt::{self, Attempt, Processes},
    files::{File, may_differ},
    outcome::{Outcome, failures},
};
use crate::tally::Tally;

const TRIES: usize = 3;

/// The number of tries in which a difference must appear before it is reported.
const REPEATS: usize = 2;

#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) tests: usize,
    pub(super) different: BTreeMap<String, String>,
    pub(super) permitted: BTreeSet<String>,
    /// The tests that differed only sometimes, and a description of their outcomes.
    pub(super) flaky: BTreeMap<String, String>,
    pub(super) processes: Processes,
    pub(super) took: Duration,
}

impl Compared {
    pub(super) fn same(&self) -> usize {
        self.tests - self.different.len() - self.permitted.len()
    }

    pub(super) fn tally(&self) -> Tally {
        Tally::of(self.same() + self.permitted.len(), self.different.len())
    }
}

type Try = [Attempt; 2];

/// Runs `file` without and with the library, repeatedly while another try could decide a test.
pub(super) fn compare(library: &Path, python: &Python, file: File) -> Result<Compared> {
    let started = Instant::now();
    let mut tries = Vec::new();
    loop {
        let without = attempt::run(python, file, None)?;
        tries.push([without, attempt::run(python, file, Some(library))?]);
        if tries.len() == TRIES || !any_open(&tries) {
            return Ok(Compared { took: started.elapsed(), ..judge(&tries) });
        }
    }
}

struct History<'a> {
    test: &'a str,
    seen: Vec<[Option<Outcome>; 2]>,
    /// True if the library may change the outcome of the test.
    may_differ: bool,
}

impl<'a> History<'a> {
    fn of(test: &'a str, tries: &[Try]) -> Self {
        let outcomes =
            |one: &Try| one.each_ref().map(|attempt| attempt.outcomes.get(test).copied());
        let failures = tries.iter().flat_map(|[_, with]| failures(&with.output));
        let sections = failures.filter(|(failed, _)| failed == test).map(|(_, section)| section);
        let may_differ = may_differ(test, sections.filter_map(|section| section.lines().next()));
        Self { test, seen: tries.iter().map(outcomes).collect(), may_differ }
    }

    fn differs(&self) -> bool {
        self.seen.iter().any(|[without, with]| without != with)
    }

    /// Returns the number of tries whose outcome with the library never occurred without it.
    fn strange(&self) -> usize {
        let own = |outcome| self.seen.iter().any(|[without, _]| *without == outcome);
        self.seen.iter().filter(|[_, with]| !own(*with)).count()
    }

    /// Returns true if the library repeatedly changes the outcome, or makes the test crash once.
    fn is_different(&self) -> bool {
        let crashes = self.seen.iter().any(|[_, with]| *with == Some(Outcome::Lost));
        self.strange() >= if crashes { 1 } else { REPEATS }
    }

    /// Returns true if another try could change the verdict on this test.
    fn is_open(&self) -> bool {
        self.differs() && !self.may_differ && !self.is_different() && self.strange() > 0
    }
}

fn histories(tries: &[Try]) -> Vec<History<'_>> {
    let tests: BTreeSet<_> =
        tries.iter().flatten().flat_map(|attempt| attempt.outcomes.keys()).collect();
    tests.into_iter().map(|test| History::of(test, tries)).collect()
}

fn any_open(tries: &[Try]) -> bool {
    histories(tries).iter().any(History::is_open)
}

fn judge(tries: &[Try]) -> Compared {
    let histories = histories(tries);
    let processes = tries[0][1].processes.clone();
    let mut compared = Compared { tests: histories.len(), processes, ..Compared::default() };
    for history in histories.iter().filter(|history| history.differs()) {
        let test = history.test.to_owned();
        if history.may_differ {
            compared.permitted.insert(test);
        } else if history.is_different() {
            compared.different.insert(test, evidence(history, tries));
        } else {
            compared.flaky.insert(test, in_words(&history.seen));
        }
    }
    compared
}

fn in_words(seen: &[[Option<Outcome>; 2]]) -> String {
    let tries = seen.iter().map(|outcomes| {
        let [without, with] = outcomes.map(|outcome| match outcome {
            Some(outcome) => format!("{outcome:?}"),
            None => "not there".to_owned(),
        });
        format!("{without} without the library, {with} with it")
    });
    tries.collect::<Vec<_>>().join("; ")
}

/// Describes the outcomes, with the text that the failed test printed or the end of the output.
fn evidence(history: &History<'_>, tries: &[Try]) -> String {
    const LAST: usize = 60;
    let mut text = in_words(&history.seen);
    let strange = history.seen.iter().position(|[without, with]| without != with);
    let Some([_, with]) = strange.map(|place| &tries[place]) else { return text };
    let section = failures(&with.output).into_iter().find(|(test, _)| test == history.test);
    match section {
        Some((_, section)) => text.extend(["\n", section]),
        None => {
            let lines: Vec<_> = with.output.lines().collect();
            for line in &lines[lines.len().saturating_sub(LAST)..] {
                text.extend(["\n", line]);
            }
        }
    }
    for reason in with.processes.unexplained() {
        text.extend(["\nnot on our heap: ", reason]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{
        super::outcome::Outcome::{Failed, Lost, Passed},
        *,
    };

    const TEST: &str = "test.test_x.X.test_y";

    fn attempt(test: &str, outcome: Option<Outcome>) -> Attempt {
        let outcomes = outcome.map(|outcome| (test.to_owned(), outcome)).into_iter().collect();
        Attempt { outcomes, output: String::new(), processes: Processes::default() }
    }

    fn tries(test: &str, seen: &[[Option<Outcome>; 2]]) -> Vec<Try> {
        seen.iter().map(|both| both.map(|outcome| attempt(test, outcome))).collect()
    }

    const SAME: [Option<Outcome>; 2] = [Some(Passed), Some(Passed)];
    const OURS_FAILS: [Option<Outcome>; 2] = [Some(Passed), Some(Failed)];

    #[test]
    fn a_difference_that_repeats_counts() {
        assert!(any_open(&tries(TEST, &[OURS_FAILS])));
        let repeated = tries(TEST, &[OURS_FAILS, SAME, OURS_FAILS]);
        assert!(judge(&repeated).different.contains_key(TEST));
        assert!(!any_open(&tries(TEST, &[OURS_FAILS, OURS_FAILS])), "two are enough");
        let missing = tries(TEST, &[[Some(Passed), None]; 2]);
        assert!(judge(&missing).different.contains_key(TEST));
    }

    #[test]
    fn a_difference_that_does_not_repeat_is_reported_as_flaky() {
        let once = judge(&tries(TEST, &[OURS_FAILS, SAME, SAME]));
        assert!(once.different.is_empty() && once.flaky[TEST].contains("Failed with it"));
        assert_eq!(once.tally(), Tally::of(1, 0));
        let own = tries(TEST, &[OURS_FAILS, [Some(Failed), Some(Failed)]]);
        assert!(!any_open(&own), "it fails without the library too");
        assert!(judge(&own).flaky.contains_key(TEST));
    }

    #[test]
    fn a_crash_with_the_library_need_not_repeat() {
        let crash = tries(TEST, &[[Some(Passed), Some(Lost)]]);
        assert!(!any_open(&crash) && judge(&crash).different.contains_key(TEST));
    }

    #[test]
    fn a_permitted_difference_is_not_tried_again() {
        let test = "test.test_sys.SysModuleTest.test_debugmallocstats";
        let permitted = tries(test, &[OURS_FAILS]);
        assert!(!any_open(&permitted));
        assert!(judge(&permitted).permitted.contains(test));
    }

    #[test]
    fn the_same_outcome_on_both_sides_is_no_difference() {
        let both_fail = judge(&tries(TEST, &[[Some(Failed), Some(Failed)]]));
        assert_eq!((both_fail.tests, both_fail.same()), (1, 1));
    }
}
