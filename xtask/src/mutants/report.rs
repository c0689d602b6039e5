//! What became of each mutant: a line at once, a JSON file, and a table at the end.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use serde::Serialize;

use super::{
    Args, CRATES,
    mutant::{Kind, Mutant},
};

/// What the tests made of a mutant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(super) enum Outcome {
    /// It does not compile.
    Unviable,
    /// The crate's own tests or models noticed it.
    Caught { by: String },
    /// Only the tests of a crate above noticed it.
    CaughtAbove,
    /// It is listed as equivalent, so it was not tried.
    Equivalent { reason: String },
    /// Every test passed.
    Survived,
}

/// A mutant and its outcome.
#[derive(Debug, Serialize)]
pub(super) struct Tried {
    #[serde(rename = "crate")]
    krate: &'static str,
    kind: Kind,
    /// File, line, function and change.
    place: String,
    diff: String,
    #[serde(flatten)]
    outcome: Outcome,
    seconds: f64,
}

impl Tried {
    pub(super) fn new(mutant: &Mutant, outcome: Outcome, time: Duration) -> Self {
        let (krate, kind) = (mutant.krate, mutant.kind);
        let seconds = time.as_secs_f64();
        Self { krate, kind, place: mutant.place(), diff: mutant.diff(), outcome, seconds }
    }

    pub(super) fn equivalent(mutant: &Mutant, reason: &str) -> Self {
        let outcome = Outcome::Equivalent { reason: reason.to_owned() };
        Self::new(mutant, outcome, Duration::ZERO)
    }
}

/// All that were tried so far.
#[derive(Serialize)]
pub(super) struct Report {
    seed: u64,
    sample: usize,
    tried: Vec<Tried>,
    #[serde(skip)]
    file: PathBuf,
}

impl Report {
    pub(super) fn new(args: &Args, file: PathBuf) -> Self {
        Self { seed: args.seed, sample: args.sample, tried: Vec::new(), file }
    }

    /// Prints a line for `tried`, and writes the file anew, so that an interrupted measure keeps
    /// what it found.
    pub(super) fn add(&mut self, tried: Tried, total: usize, elapsed: Duration) -> Result<()> {
        let minutes = elapsed.as_secs() / 60;
        let outcome = match &tried.outcome {
            Outcome::Unviable => "does not compile".to_owned(),
            Outcome::Caught { by } => format!("caught by {by}"),
            Outcome::CaughtAbove => "caught above only".to_owned(),
            Outcome::Equivalent { .. } => "equivalent".to_owned(),
            Outcome::Survived => "SURVIVED".to_owned(),
        };
        let count = self.tried.len() + 1;
        println!(
            "[{count}/{total}, {minutes} min] {outcome} ({:.0} s): {}",
            tried.seconds, tried.place
        );
        self.tried.push(tried);
        let json = serde_json::to_string_pretty(self)?;
        fs::write(&self.file, json).with_context(|| format!("cannot write {}", self.file.display()))
    }

    /// Prints the survivors and the counts of each crate.
    pub(super) fn print(&self) {
        for tried in &self.tried {
            let what = match tried.outcome {
                Outcome::Survived => "survived",
                Outcome::CaughtAbove => "caught above only",
                _ => continue,
            };
            println!("\n{what}: {}\n{}", tried.place, tried.diff);
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header([
            "crate",
            "viable",
            "caught",
            "above only",
            "equivalent",
            "survived",
            "share",
        ]);
        for krate in CRATES {
            let counts = Counts::of(self.tried.iter().filter(|tried| tried.krate == krate.folder));
            if counts.viable() > 0 {
                table.add_row(counts.row(krate.folder));
            }
        }
        table.add_row(Counts::of(&self.tried).row("all"));
        println!("{table}\nresults: {}", self.file.display());
    }
}

/// How many mutants had which outcome.
#[derive(Default)]
struct Counts {
    caught: usize,
    above: usize,
    equivalent: usize,
    survived: usize,
}

impl Counts {
    fn of<'a>(tried: impl IntoIterator<Item = &'a Tried>) -> Self {
        let mut counts = Self::default();
        for tried in tried {
            match tried.outcome {
                Outcome::Unviable => {}
                Outcome::Caught { .. } => counts.caught += 1,
                Outcome::CaughtAbove => counts.above += 1,
                Outcome::Equivalent { .. } => counts.equivalent += 1,
                Outcome::Survived => counts.survived += 1,
            }
        }
        counts
    }

    fn viable(&self) -> usize {
        self.caught + self.above + self.equivalent + self.survived
    }

    /// The share of caught mutants among those that are not equivalent.
    fn share(&self) -> f64 {
        let real = self.caught + self.above + self.survived;
        100.0 * (self.caught + self.above) as f64 / real.max(1) as f64
    }

    fn row(&self, name: &str) -> [String; 7] {
        let Self { caught, above, equivalent, survived } = self;
        let counts = [self.viable(), *caught, *above, *equivalent, *survived];
        let [viable, caught, above, equivalent, survived] = counts.map(|count| count.to_string());
        let share = format!("{:.1} %", self.share());
        [name.to_owned(), viable, caught, above, equivalent, survived, share]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equivalent_and_unviable_mutants_do_not_change_the_share() {
        let tried = |outcome| Tried {
            krate: "sync",
            kind: Kind::Listed,
            place: String::new(),
            diff: String::new(),
            outcome,
            seconds: 0.0,
        };
        let outcomes = [
            Outcome::Unviable,
            Outcome::Equivalent { reason: "It is the same.".to_owned() },
            Outcome::Caught { by: "unit tests of sync".to_owned() },
            Outcome::CaughtAbove,
            Outcome::CaughtAbove,
            Outcome::Survived,
        ];
        let counts = Counts::of(&outcomes.map(tried));
        assert_eq!(counts.row("all"), ["all", "5", "1", "2", "1", "1", "75.0 %"]);
    }
}
