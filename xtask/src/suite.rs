//! CPython's own tests, with and without the library, compared test by test.
//!
//! ```text
//!   plan      every (Python, file) to look at, two at a time
//!     ▼
//!   pair      without the library ─► outcomes ─┐
//!             with it ─────────────► outcomes ─┴─► a difference? both again, up to three times
//!     ▼
//!   summary   same · permitted · flaky · different
//! ```

mod attempt;
mod children;
mod files;
mod history;
mod outcome;
mod pair;
mod plan;
mod summary;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
};

use anyhow::{Context, Result, ensure};
use testkit::pythons::{self, Python};

use self::{
    pair::Compared,
    plan::{Extent, Job, Shelf},
};
use crate::{python, tally::Tally, workspace};

/// The arguments of `cargo xtask test-python`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Runs every file on every Python, not only the part that fits into five minutes.
    #[arg(long)]
    all: bool,
    /// A Python to use; may be given several times [default: every one that is found]
    #[arg(long, value_name = "PATH")]
    with: Vec<PathBuf>,
    /// Runs this file alone, as test_dict; may be given several times.
    #[arg(long, value_name = "TEST")]
    only: Vec<String>,
    /// How many files are run at the same time.
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
    let tally = compare(&pythons, &extent, args.jobs)?;
    println!("{tally}");
    ensure!(tally.failed == 0, "CPython's tests do not all have the same results");
    Ok(())
}

/// The part that fits into five minutes, as a step of the tests.
pub(crate) fn run_part() -> Result<Tally> {
    compare(&pythons::find(), &Extent::Part, 2)
}

fn compare(pythons: &[Python], extent: &Extent, workers: u16) -> Result<Tally> {
    let library = workspace::build_library()?;
    let (with_tests, without): (Vec<_>, Vec<_>) = pythons
        .iter()
        .filter(|python| python.is_supported())
        .partition(|python| python.ships_tests);
    for python in without {
        println!("      {} does not ship the tests", python.name());
    }
    ensure!(!with_tests.is_empty(), "no {} with its own tests was found", pythons::SUPPORTED);
    let shelves = with_tests.into_iter().map(Shelf::of).collect::<Result<Vec<_>>>()?;
    for shelf in shelves.iter().filter(|shelf| !shelf.missing().is_empty()) {
        println!("      {} has no {}", shelf.python.name(), shelf.missing().join(", "));
    }
    let jobs = plan::jobs(&shelves, extent)?;
    ensure!(!jobs.is_empty(), "none of these Pythons has such a test");
    let queue = Queue { count: jobs.len(), jobs: Mutex::new(jobs), done: Mutex::default() };
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| queue.work(&library));
        }
    });
    let done = queue.done.into_inner().unwrap_or_default();
    let done = done.into_iter().collect::<Result<Vec<_>>>()?;
    println!("{}", summary::table(&done));
    Ok(done.iter().map(|done| done.compared.tally()).sum())
}

/// A job that was done.
struct Done<'a> {
    python: &'a Python,
    file: &'static str,
    compared: Compared,
}

/// What is to be done, and what was.
struct Queue<'a> {
    count: usize,
    jobs: Mutex<VecDeque<Job<'a>>>,
    done: Mutex<Vec<Result<Done<'a>>>>,
}

impl Queue<'_> {
    /// Takes jobs until there is none.
    fn work(&self, library: &Path) {
        let next = || self.jobs.lock().ok()?.pop_front();
        while let Some(Job { python, file }) = next() {
            let compared = pair::compare(library, python, file)
                .with_context(|| format!("{} on {}", file.name, python.name()));
            let Ok(mut done) = self.done.lock() else { return };
            if let Ok(compared) = &compared {
                println!(
                    "      {}/{} {} on {}:",
                    done.len() + 1,
                    self.count,
                    file.name,
                    python.name()
                );
                summary::lines(compared).iter().for_each(|line| println!("        {line}"));
            }
            let file = file.name;
            done.push(compared.map(|compared| Done { python, file, compared }));
        }
    }
}
