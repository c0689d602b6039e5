//! Runs CPython's own tests with and without our library, and compares the outcome of each test.
//!
//! A file whose outcomes differ runs up to three times both ways.

mod attempt;
mod files;
mod outcome;
mod pair;
mod shelves;
mod summary;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result, ensure};
use testkit::pythons::{self, Python};

use self::{
    shelves::{Extent, Job, Shelf},
    summary::Done,
};
use crate::{parallel::in_parallel, python, tally::Tally, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Runs every file on every Python, not only the part that takes five minutes.
    #[arg(long)]
    all: bool,
    /// A Python to use. May be repeated [default: every Python that is found]
    #[arg(long, value_name = "PATH")]
    with: Vec<PathBuf>,
    /// Runs only this file, for example test_dict. May be repeated.
    #[arg(long, value_name = "TEST")]
    only: Vec<String>,
    /// How many files run at the same time.
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let pythons = if args.with.is_empty() { pythons::find() } else { python::named(&args.with)? };
    let extent = match (args.only.is_empty(), args.all) {
        (false, _) => Extent::Only(args.only),
        (true, true) => Extent::All,
        (true, false) => Extent::Part,
    };
    let tally = compare(&pythons, &extent, args.jobs.into())?;
    println!("{tally}");
    ensure!(tally.failed == 0, "CPython's tests do not all have the same outcome");
    Ok(())
}

pub(crate) fn run_part() -> Result<Tally> {
    compare(&pythons::find(), &Extent::Part, 2)
}

fn compare(pythons: &[Python], extent: &Extent, threads: usize) -> Result<Tally> {
    let library = workspace::build_library()?;
    let supported = pythons.iter().filter(|python| python.is_supported());
    let (with_tests, without): (Vec<_>, Vec<_>) = supported.partition(|python| python.ships_tests);
    for python in without {
        println!("      {} does not ship the tests", python.name());
    }
    ensure!(!with_tests.is_empty(), "no {} with its own tests was found", pythons::SUPPORTED);
    let shelves = with_tests.into_iter().map(Shelf::of).collect::<Result<Vec<_>>>()?;
    for shelf in shelves.iter().filter(|shelf| !shelf.missing().is_empty()) {
        println!("      {} has no {}", shelf.python.name(), shelf.missing().join(", "));
    }
    let jobs = shelves::jobs(&shelves, extent)?;
    ensure!(!jobs.is_empty(), "none of these Pythons has such a test");
    let (count, ended) = (jobs.len(), AtomicUsize::new(0));
    let work = |_: &(), Job { python, file }| {
        let compared = pair::compare(&library, python, file)
            .with_context(|| format!("{} on {}", file.name, python.name()))?;
        let ended = ended.fetch_add(1, Ordering::Relaxed) + 1;
        let lines = summary::lines(&compared).join("\n        ");
        println!("      {ended}/{count} {} on {}:\n        {lines}", file.name, python.name());
        Ok(Done { python, file: file.name, compared })
    };
    let done = in_parallel(threads, jobs, |_| Ok(()), work)?;
    println!("{}", summary::table(&done));
    Ok(done.iter().map(|done| done.compared.tally()).sum())
}
