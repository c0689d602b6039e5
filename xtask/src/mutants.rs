//! Measures how many small faults in the shipping crates the tests notice.
//!
//! ```text
//!   cargo-mutants ─┐                            a copy of the project
//!                  ├─► sample by seed ─► apply ─► build ─► tests of the crate ─► loom models
//!   own mutants  ──┘                                                └─► tests of the crates above
//! ```
//!
//! A mutant is one small change: an operator, a condition, a function without its body, a deleted
//! statement, a number one higher, a weaker memory ordering. A mutant that every test passes is a
//! survivor. It shows code that no test depends on, unless it is equivalent to the original.
//! `equivalent.txt` lists those, with reasons.

mod equivalent;
mod find;
mod mutant;
mod own;
mod report;
mod tree;
mod trial;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{process, workspace};
use mutant::Mutant;
use report::{Report, Tried};
use tree::Tree;
use trial::Lab;

/// The arguments of `cargo xtask mutants`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many mutants are drawn [default: 100].
    #[arg(long, value_name = "N", default_value_t = 100)]
    sample: usize,
    /// The seed of the draw. The same seed and code give the same sample.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Draws from these crates only [default: all shipping crates but cpython].
    #[arg(long = "crate", value_name = "C")]
    crates: Vec<String>,
    /// Draws only mutants whose printed name contains this text.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// How many mutants are tried at once, each in its own copy of the project.
    #[arg(long, value_name = "J", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
    /// Prints the sample with its diffs and tries nothing.
    #[arg(long)]
    list: bool,
}

/// A shipping crate and the tests that may notice a fault in it.
struct Crate {
    /// The folder below `crates`.
    folder: &'static str,
    package: &'static str,
    /// Whether the crate has loom models.
    loom: bool,
    /// The crates above, which run when the crate's own tests notice nothing.
    above: &'static [&'static str],
}

const CRATES: &[Crate] = &[
    Crate::new("sync", false, &["object-cache", "thread-heap"]),
    Crate::new("raw-mem", false, &["obmalloc", "thread-heap", "global-alloc"]),
    Crate::new("obmalloc", true, &["thread-heap", "global-alloc"]),
    Crate::new("thread-heap", true, &["global-alloc"]),
    Crate::new("object-cache", true, &[]),
    Crate::new("allocator-api", true, &["obmalloc-cpython"]),
    Crate::new("global-alloc", false, &[]),
    Crate { package: "obmalloc-cpython", ..Crate::new("cpython", false, &[]) },
];

impl Crate {
    const fn new(name: &'static str, loom: bool, above: &'static [&'static str]) -> Self {
        Self { folder: name, package: name, loom, above }
    }

    /// Returns true if integration tests run. Those of `cpython` need a built library and a Python
    /// for each mutant, which takes too long.
    fn has_integration_tests(&self) -> bool {
        let tests = workspace::root().join("crates").join(self.folder).join("tests");
        self.folder != "cpython" && tests.is_dir()
    }
}

pub(crate) fn run(args: Args) -> Result<()> {
    let crates = chosen(&args.crates)?;
    let folder = workspace::target_dir().join("mutants");
    let equivalent = equivalent::listed()?;
    let all = find::all(&Tree::copy(folder.join("list"))?, &crates)?;
    println!("{} mutants in {} crates", all.len(), crates.len());
    for stale in equivalent.iter().filter(|listed| stale(listed, &all, &crates)) {
        println!("equivalent.txt lists a mutant that no longer exists: {}", stale.name);
    }
    let sample = draw(all, &args);
    if args.list {
        for mutant in &sample {
            println!("{}\n{}", mutant.place(), mutant.diff());
        }
        return Ok(());
    }
    ensure!(!sample.is_empty(), "no mutant matches");
    process::kill_children_when_interrupted()?;
    let report = Mutex::new(Report::new(&args, folder.join(format!("seed-{}.json", args.seed))));
    let (next, total, started) = (AtomicUsize::new(0), sample.len(), Instant::now());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..args.jobs)
            .map(|job| {
                let (folder, sample, next, report) =
                    (folder.join(job.to_string()), &sample, &next, &report);
                let (crates, equivalent) = (&crates, &equivalent);
                scope.spawn(move || -> Result<()> {
                    let lab = Lab::new(&folder, crates, sample)?;
                    while let Some(mutant) = sample.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let known = equivalent.iter().find(|listed| listed.name == mutant.name());
                        let tried = match known {
                            Some(listed) => Tried::equivalent(mutant, &listed.reason),
                            None => lab.try_out(mutant)?,
                        };
                        let mut report = report.lock().expect("a worker has panicked");
                        report.add(tried, total, started.elapsed())?;
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(outcome) => outcome,
            Err(_) => bail!("a worker has panicked"),
        })
    })?;
    report.into_inner().expect("all workers have ended").print();
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Crate>> {
    if names.is_empty() {
        // Most of it only runs inside a Python, where its unit tests see nothing.
        return Ok(CRATES.iter().filter(|krate| krate.folder != "cpython").collect());
    }
    let find = |name: &String| {
        let known = CRATES.iter().find(|krate| [krate.folder, krate.package].contains(&&**name));
        known.with_context(|| format!("{name} is not a shipping crate"))
    };
    names.iter().map(find).collect()
}

/// Draws the sample. The order of `all` does not depend on the machine, so the seed decides.
/// Mutants of one file follow each other, so that cargo has less to build between them.
fn draw(mut all: Vec<Mutant>, args: &Args) -> Vec<Mutant> {
    if !args.only.is_empty() {
        all.retain(|mutant| args.only.iter().any(|text| mutant.place().contains(text)));
    }
    fastrand::Rng::with_seed(args.seed).shuffle(&mut all);
    all.truncate(args.sample);
    all.sort_by_cached_key(|mutant| (mutant.source.path.clone(), mutant.range.start));
    all
}

/// Returns true if `listed` names none of `all`, although its crate was searched.
fn stale(listed: &equivalent::Listed, all: &[Mutant], crates: &[&Crate]) -> bool {
    let searched = |krate: &&Crate| listed.name.starts_with(&format!("crates/{}/", krate.folder));
    crates.iter().any(searched) && !all.iter().any(|mutant| mutant.name() == listed.name)
}
