//! Reports the outcome of each mutant as lines, as a JSON file and as a table.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{
    crates,
    mutant::{Kind, Mutant},
};
use crate::report::Table;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(super) enum Outcome {
    /// The mutant does not compile.
    Unviable,
    /// The crate's own tests or loom models noticed the mutant.
    Caught { by: String },
    /// Only the tests of a crate above noticed the mutant.
    CaughtAbove,
    /// The mutant is listed as equivalent to the original, so it was not tested.
    Equivalent { reason: String },
    /// Every test passed with the mutant.
    Survived,
}

#[derive(Debug, Serialize)]
pub(super) struct Tried {
    #[serde(rename = "crate")]
    krate: &'static str,
    kind: Kind,
    place: String,
    diff: String,
    #[serde(flatten)]
    outcome: Outcome,
    seconds: f64,
}

impl Tried {
    pub(super) fn new(mutant: &Mutant, outcome: Outcome, time: Duration) -> Self {
        let (place, diff, seconds) = (mutant.place(), mutant.diff(), time.as_secs_f64());
        Self { krate: mutant.krate, kind: mutant.kind, place, diff, outcome, seconds }
    }
}

#[derive(Serialize)]
pub(super) struct Report {
    seed: u64,
    sample: usize,
    tried: Vec<Tried>,
    #[serde(skip)]
    file: PathBuf,
    #[serde(skip)]
    started: Instant,
}

impl Report {
    pub(super) fn new(seed: u64, sample: usize, file: PathBuf) -> Self {
        Self { seed, sample, tried: Vec::new(), file, started: Instant::now() }
    }

    /// Adds `tried`, prints it, and saves the JSON file in case the run is interrupted.
    pub(super) fn add(&mut self, tried: Tried) -> Result<()> {
        let outcome = match &tried.outcome {
            Outcome::Unviable => "does not compile",
            Outcome::Caught { by } => &format!("caught by {by}"),
            Outcome::CaughtAbove => "caught above only",
            Outcome::Equivalent { .. } => "equivalent",
            Outcome::Survived => "SURVIVED",
        };
        let (count, minutes) = (self.tried.len() + 1, self.started.elapsed().as_secs() / 60);
        let Tried { place, seconds, .. } = &tried;
        println!("[{count}/{}, {minutes} min] {outcome} ({seconds:.0} s): {place}", self.sample);
        self.tried.push(tried);
        let json = serde_json::to_string_pretty(self)?;
        fs::write(&self.file, json).with_context(|| format!("cannot write {}", self.file.display()))
    }

    pub(super) fn print(&self) {
        for tried in &self.tried {
            let what = match tried.outcome {
                Outcome::Survived => "survived",
                Outcome::CaughtAbove => "caught above only",
                _ => continue,
            };
            println!("\n{what}: {}\n{}", tried.place, tried.diff);
        }
        let counts = ["viable", "caught", "above only", "equivalent", "survived", "share"];
        let mut table = Table::new(["crate"].into_iter().chain(counts));
        for krate in crates::ALL {
            let of_crate = self.tried.iter().filter(|tried| tried.krate == krate.folder);
            if of_crate.clone().any(|tried| tried.outcome != Outcome::Unviable) {
                table.add(row(krate.folder, of_crate));
            }
        }
        table.add(row("all", self.tried.iter()));
        println!("{table}\nresults: {}", self.file.display());
    }
}

/// Returns the counts of the outcomes, and the share of caught mutants among those that could be
/// caught.
fn row<'a>(name: &str, tried: impl Iterator<Item = &'a Tried> + Clone) -> [String; 7] {
    let count =
        |is_one: fn(&Outcome) -> bool| tried.clone().filter(|tried| is_one(&tried.outcome)).count();
    let caught = count(|outcome| matches!(outcome, Outcome::Caught { .. }));
    let above = count(|outcome| *outcome == Outcome::CaughtAbove);
    let equivalent = count(|outcome| matches!(outcome, Outcome::Equivalent { .. }));
    let survived = count(|outcome| *outcome == Outcome::Survived);
    let real = caught + above + survived;
    let share = 100.0 * (caught + above) as f64 / real.max(1) as f64;
    let counts = [real + equivalent, caught, above, equivalent, survived];
    let [viable, caught, above, equivalent, survived] = counts.map(|count| count.to_string());
    [name.to_owned(), viable, caught, above, equivalent, survived, format!("{share:.1} %")]
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
        let tried = outcomes.map(tried);
        assert_eq!(row("all", tried.iter()), ["all", "5", "1", "2", "1", "1", "75.0 %"]);
    }
}
