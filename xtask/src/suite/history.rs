//! What is known of one test after some tries, and whether it has another outcome with the library.

use std::collections::BTreeSet;

use super::{
    attempt::Attempt,
    files::may_differ,
    outcome::{Outcome, failures},
};

/// How often a difference must show to be one.
const REPEATS: usize = 2;

/// A run without the library and one with it.
#[derive(Debug)]
pub(super) struct Try {
    pub(super) without: Attempt,
    pub(super) with: Attempt,
}

/// What is known of one test.
pub(super) struct History<'a> {
    pub(super) test: &'a str,
    /// Its outcome without the library and with it, in each try.
    pub(super) seen: Vec<[Option<Outcome>; 2]>,
    /// It may have the outcomes that it has with the library.
    pub(super) may_differ: bool,
}

impl<'a> History<'a> {
    fn of(test: &'a str, tries: &[Try]) -> Self {
        let outcomes =
            |one: &Try| [&one.without, &one.with].map(|side| side.outcomes.get(test).copied());
        let failures = tries.iter().flat_map(|one| failures(&one.with.output));
        let sections = failures.filter(|(failed, _)| failed == test).map(|(_, section)| section);
        Self {
            test,
            seen: tries.iter().map(outcomes).collect(),
            may_differ: may_differ(test, sections.filter_map(|section| section.lines().next())),
        }
    }

    pub(super) fn differs(&self) -> bool {
        self.seen.iter().any(|[without, with]| without != with)
    }

    /// In how many tries its outcome with the library was one that it never had without.
    fn strange(&self) -> usize {
        let own = |outcome| self.seen.iter().any(|[without, _]| *without == outcome);
        self.seen.iter().filter(|[_, with]| !own(*with)).count()
    }

    /// It has another outcome with the library. A crash need not repeat.
    pub(super) fn is_different(&self) -> bool {
        let crashes = self.seen.iter().any(|[_, with]| *with == Some(Outcome::Lost));
        let needed = if crashes { 1 } else { REPEATS };
        self.strange() >= needed
    }

    /// Another try could change the verdict.
    pub(super) fn is_open(&self) -> bool {
        self.differs() && !self.may_differ && !self.is_different() && self.strange() > 0
    }
}

/// Of every test that any of `tries` knows.
pub(super) fn histories(tries: &[Try]) -> Vec<History<'_>> {
    let sides = tries.iter().flat_map(|one| [&one.without, &one.with]);
    let tests: BTreeSet<&String> = sides.flat_map(|attempt| attempt.outcomes.keys()).collect();
    tests.into_iter().map(|test| History::of(test, tries)).collect()
}
