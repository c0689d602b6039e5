//! CPython's own tests, with and without the library, compared test by test.

mod files;
mod outcome;
mod pair;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use comfy_table::{CellAlignment, Table, presets};
use testkit::pythons::{self, Python};

use self::{files::File, pair::Compared};
use crate::{tally::Tally, workspace};

/// Pairs that run at the same time.
const WORKERS: usize = 2;

/// The arguments of `cargo xtask test-python`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Runs all the files that are compared, not only the quick ones.
    #[arg(long)]
    all: bool,
    /// A Python to use; may be given again. Without it, every one that is found.
    #[arg(long)]
    with: Vec<PathBuf>,
    /// Runs only the files whose name holds this.
    #[arg(long)]
    only: Option<String>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let pythons = match args.with.as_slice() {
        [] => pythons::find(),
        named => named.iter().filter_map(|path| Python::ask(path)).collect(),
    };
    let chosen = |file: &File| {
        let named = args.only.as_ref().is_none_or(|part| file.name.contains(part.as_str()));
        named && (args.all || args.only.is_some() || file.quick)
    };
    let tally = compare(&pythons, chosen)?;
    println!("{tally}");
    ensure!(tally.failed == 0, "CPython's tests do not all have the same results");
    Ok(())
}

/// The quick files on every Python, as a step of the tests.
pub(crate) fn run_part() -> Result<Tally> {
    compare(&pythons::find(), |file| file.quick)
}

/// One file on one Python.
struct Job<'a> {
    python: &'a Python,
    file: &'static File,
}

fn compare(pythons: &[Python], chosen: impl Fn(&File) -> bool) -> Result<Tally> {
    let library = workspace::build_library()?;
    let usable: Vec<_> =
        pythons.iter().filter(|python| python.is_supported() && python.ships_tests).collect();
    ensure!(!usable.is_empty(), "no supported CPython with its own tests is found");
    let mut jobs = VecDeque::new();
    for file in files::ALL.iter().filter(|file| chosen(file)) {
        for python in &usable {
            if files::is_shipped(python, file)? {
                jobs.push_back(Job { python, file });
            }
        }
    }
    let count = jobs.len();
    let (jobs, done) = (Mutex::new(jobs), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| work(&library, &jobs, &done, count));
        }
    });
    let done = done.into_inner().unwrap_or_default().into_iter().collect::<Result<Vec<_>>>()?;
    println!("{}", table(&done));
    Ok(done.iter().map(|(_, _, compared)| compared.tally()).sum())
}

type Done = (String, &'static str, Compared);

fn work(
    library: &Path,
    jobs: &Mutex<VecDeque<Job<'_>>>,
    done: &Mutex<Vec<Result<Done>>>,
    count: usize,
) {
    let next = || jobs.lock().ok()?.pop_front();
    while let Some(Job { python, file }) = next() {
        let outcome = pair::compare(library, python, file)
            .with_context(|| format!("{} on {}", file.name, python.name()));
        let Ok(mut done) = done.lock() else { return };
        if let Ok(compared) = &outcome {
            compared.print(file.name, &python.name(), done.len() + 1, count);
        }
        done.push(outcome.map(|compared| (python.name(), file.name, compared)));
    }
}

fn table(done: &[Done]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["Python", "file", "tests", "same", "permitted", "flaky", "different", "s"]);
    for (python, file, compared) in done {
        let mut cells = vec![python.clone(), (*file).to_owned()];
        let counts = [compared.tests, compared.same(), compared.permitted.len()];
        cells.extend(counts.map(|count| count.to_string()));
        cells.push(compared.flaky.len().to_string());
        cells.push(compared.different.len().to_string());
        cells.push(seconds(compared.took));
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn seconds(time: Duration) -> String {
    format!("{:.0}", time.as_secs_f64())
}
