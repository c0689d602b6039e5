//! A test file without the library and with it, and what is not the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use testkit::pythons::Python;

use super::{
    attempt,
    children::Processes,
    files::File,
    history::{History, Try, histories},
    outcome::{Outcome, failures},
};
use crate::tally::Tally;

/// How often a difference is tried, at most.
const TRIES: usize = 3;

/// What the runs of a file came to.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) tests: usize,
    /// Tests whose outcome is another one with the library, with what they printed.
    pub(super) different: BTreeMap<String, String>,
    /// Those that may.
    pub(super) permitted: BTreeSet<String>,
    /// Tests whose outcome differed and did so no more, with what was seen.
    pub(super) flaky: BTreeMap<String, String>,
    /// The processes of the first run with the library.
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

/// Runs `file` on both sides, again where an outcome differs.
pub(super) fn compare(library: &Path, python: &Python, file: &File) -> Result<Compared> {
    let started = Instant::now();
    let mut tries = Vec::new();
    loop {
        let without = attempt::run(python, file, None)?;
        let with = attempt::run(python, file, Some(library))?;
        tries.push(Try { without, with });
        if tries.len() == TRIES || !any_open(&tries) {
            break;
        }
    }
    Ok(Compared { took: started.elapsed(), ..judge(&tries) })
}

fn any_open(tries: &[Try]) -> bool {
    histories(tries).iter().any(History::is_open)
}

fn judge(tries: &[Try]) -> Compared {
    let histories = histories(tries);
    let mut compared = Compared { tests: histories.len(), ..Compared::default() };
    compared.processes = tries[0].with.processes.clone();
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

/// The outcomes of each try.
fn in_words(seen: &[[Option<Outcome>; 2]]) -> String {
    let word = |outcome: &Option<Outcome>| {
        outcome.map_or("not there".to_owned(), |outcome| format!("{outcome:?}"))
    };
    let tries = seen.iter().map(|[without, with]| {
        format!("{} without the library, {} with it", word(without), word(with))
    });
    tries.collect::<Vec<_>>().join("; ")
}

/// What was seen, and what the test printed when it failed with the library, or the last lines of
/// all that was printed.
fn evidence(history: &History<'_>, tries: &[Try]) -> String {
    const LAST: usize = 60;
    let mut text = in_words(&history.seen);
    let is_strange = |(_, [without, with]): &(&Try, &[Option<Outcome>; 2])| without != with;
    let Some((one, _)) = tries.iter().zip(&history.seen).find(is_strange) else { return text };
    let output = &one.with.output;
    let mut sections = failures(output).into_iter().filter(|(test, _)| test == history.test);
    match sections.next() {
        Some((_, section)) => text.extend(["\n", section]),
        None => {
            let lines: Vec<_> = output.lines().collect();
            for line in &lines[lines.len().saturating_sub(LAST)..] {
                text.extend(["\n", line]);
            }
        }
    }
    for reason in one.with.processes.unexplained() {
        text.extend(["\nnot on our heap: ", reason]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            attempt::Attempt,
            outcome::Outcome::{Failed, Lost, Passed},
        },
        *,
    };

    const TEST: &str = "test.test_x.X.test_y";

    fn result(test: &str, outcome: Option<Outcome>) -> Attempt {
        let outcomes = outcome.map(|outcome| (test.to_owned(), outcome)).into_iter().collect();
        Attempt { outcomes, output: String::new(), processes: Processes::default() }
    }

    fn tries(test: &str, seen: &[[Option<Outcome>; 2]]) -> Vec<Try> {
        let both = |[without, with]: &[Option<Outcome>; 2]| Try {
            without: result(test, *without),
            with: result(test, *with),
        };
        seen.iter().map(both).collect()
    }

    const SAME: [Option<Outcome>; 2] = [Some(Passed), Some(Passed)];
    const OURS_FAILS: [Option<Outcome>; 2] = [Some(Passed), Some(Failed)];

    #[test]
    fn a_difference_that_repeats_is_one() {
        assert!(any_open(&tries(TEST, &[OURS_FAILS])));
        let repeated = tries(TEST, &[OURS_FAILS, SAME, OURS_FAILS]);
        assert!(judge(&repeated).different.contains_key(TEST));
        assert!(!any_open(&tries(TEST, &[OURS_FAILS, OURS_FAILS])), "two are enough");
        let missing = tries(TEST, &[[Some(Passed), None]; 2]);
        assert!(judge(&missing).different.contains_key(TEST));
    }

    #[test]
    fn a_difference_that_does_not_repeat_is_flaky_and_told() {
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
    fn what_may_differ_is_not_tried_again() {
        let test = "test.test_sys.SysModuleTest.test_debugmallocstats";
        let permitted = tries(test, &[OURS_FAILS]);
        assert!(!any_open(&permitted));
        assert!(judge(&permitted).permitted.contains(test));
    }

    #[test]
    fn what_is_the_same_on_both_sides_is_no_difference() {
        let both_fail = judge(&tries(TEST, &[[Some(Failed), Some(Failed)]]));
        assert_eq!((both_fail.tests, both_fail.same()), (1, 1));
    }
}
