//! A program on three allocators in turn.
//!
//! ```text
//!   counted    round 1               round 2               round 3
//!   ours       CPython malloc ours   malloc ours CPython   ours CPython malloc   …
//! ```
//!
//! The order turns from round to round, so that what slows the machine down for a while slows all
//! of them down. The counted run says what we served and is not measured, since counting costs
//! time; it brings the files into memory, too.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use testkit::pythons::Python;

use super::{
    comparison::{Comparison, Row},
    measure::{self, Cost, Run},
    programs::Program,
    report::{Reports, Share},
    side::Side,
};
use crate::workspace;

/// Compares `programs` on each of `pythons`, and prints a table for each.
pub(super) fn run(pythons: &[Python], programs: &[Program], rounds: usize) -> Result<()> {
    for python in pythons {
        ensure!(python.is_supported(), "obmalloc is not for {}", python.name());
    }
    let library = workspace::build_library()?;
    for python in pythons {
        let runs = Runs::new(python, &library, programs, rounds);
        println!("{}, medians of {rounds}:\n{}", python.name(), runs.compare()?);
    }
    Ok(())
}

/// All the runs of one Python.
struct Runs<'a> {
    python: &'a Python,
    library: &'a Path,
    programs: &'a [Program],
    rounds: usize,
    bar: ProgressBar,
}

/// A program, and what is known of it so far.
struct Subject<'a> {
    program: &'a Program,
    share: Share,
    printed: Vec<u8>,
    /// In the order of [`Side::ALL`].
    costs: [Vec<Cost>; 3],
}

impl<'a> Runs<'a> {
    fn new(python: &'a Python, library: &'a Path, programs: &'a [Program], rounds: usize) -> Self {
        let runs = programs.len() * (1 + Side::ALL.len() * rounds);
        let bar = ProgressBar::new(runs as u64);
        let style = "{bar:40} {pos}/{len}  {elapsed} of about {duration}  {msg}";
        bar.set_style(ProgressStyle::with_template(style).expect("a template"));
        Self { python, library, programs, rounds, bar }
    }

    fn compare(&self) -> Result<Comparison> {
        let subjects: Result<Vec<_>> =
            self.programs.iter().map(|program| self.counted(program)).collect();
        let mut subjects = subjects?;
        let mut differing = BTreeSet::new();
        for round in 0..self.rounds {
            for subject in &mut subjects {
                for turn in 0..Side::ALL.len() {
                    let at = (turn + round) % Side::ALL.len();
                    let Run { cost, stdout, .. } = self.one(Side::ALL[at], subject.program)?;
                    subject.costs[at].push(cost);
                    if stdout != subject.printed {
                        differing.insert(subject.program.name.clone());
                        ensure!(
                            !subject.program.bundled,
                            "{} with {} prints something else on {} than in its counted run on {}",
                            subject.program.name,
                            self.python.name(),
                            Side::ALL[at].name(),
                            Side::Obmalloc.name()
                        );
                    }
                }
            }
        }
        self.bar.finish_and_clear();
        let rows = subjects
            .into_iter()
            .map(|subject| Row::new(subject.program.name.clone(), &subject.costs, subject.share));
        Ok(Comparison { rows: rows.collect(), differing })
    }

    /// Runs `program` on our heap, with counters.
    fn counted(&self, program: &'a Program) -> Result<Subject<'a>> {
        self.bar.set_message(format!("{}, counted", program.name));
        let reports = Reports::new()?;
        let mut command = Side::Obmalloc.command(self.python, self.library);
        reports.ask(&mut command);
        let run = measure::run(command.args(&program.args))?;
        let reports = reports.read()?;
        let report = reports.get(&run.pid).context("the library left no report of this process")?;
        if !report.in_force {
            bail!("our heap is not in force: {}", report.reason.as_deref().unwrap_or("?"));
        }
        self.bar.inc(1);
        let share = Share::of(reports.values());
        Ok(Subject { program, share, printed: run.stdout, costs: Default::default() })
    }

    /// Runs `program` on `side`, measured.
    fn one(&self, side: Side, program: &Program) -> Result<Run> {
        self.bar.set_message(format!("{} on {}", program.name, side.name()));
        let mut command = side.command(self.python, self.library);
        let run = measure::run(command.args(&program.args))?;
        self.bar.inc(1);
        Ok(run)
    }
}
