//! Measures how many small faults in the shipping crates the tests notice.
//!
//! A mutant is a copy of the project with one small change, such as another operator. A mutant that
//! passes every test shows code that no test depends on.

mod crates;
mod equivalent;
mod find;
mod mutant;
mod own;
mod report;
mod tree;
mod trial;

use std::{sync::Mutex, time::Instant};

use anyhow::{Result, ensure};

use crate::{parallel::in_parallel, process, workspace};
use crates::Crate;
use mutant::Mutant;
use report::{Outcome, Report, Tried};
use tree::Tree;
use trial::Lab;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The number of mutants in the sample.
    #[arg(long, value_name = "N", default_value_t = 100)]
    sample: usize,
    /// The seed of the sample. The same seed and code give the same sample.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Draws only from this crate. May be repeated [default: all shipping crates except cpython]
    #[arg(long = "crate", value_name = "C")]
    crates: Vec<String>,
    /// Draws only mutants whose printed name contains this text. May be repeated.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// How many mutants are tried at the same time, each in its own copy of the project.
    #[arg(long, value_name = "J", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
    /// Prints the sample with its diffs, and tries nothing.
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let crates = crates::chosen(&args.crates)?;
    let folder = workspace::target_dir().join("mutants");
    let equivalent = equivalent::listed()?;
    let all = find::all(&Tree::copy(folder.join("list"))?, &crates)?;
    println!("{} mutants in {} crates", all.len(), crates.len());
    for name in equivalent.keys().filter(|name| is_stale(name, &all, &crates)) {
        println!("equivalent.txt lists a mutant that no longer exists: {name}");
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
    let report =
        Report::new(args.seed, sample.len(), folder.join(format!("seed-{}.json", args.seed)));
    let report = Mutex::new(report);
    let begin = |job: usize| Lab::new(&folder.join(job.to_string()), &crates, &sample);
    let work = |lab: &Lab, mutant: &Mutant| {
        let started = Instant::now();
        let outcome = match equivalent.get(&mutant.name()) {
            Some(reason) => Outcome::Equivalent { reason: reason.clone() },
            None => lab.try_out(mutant)?,
        };
        let tried = Tried::new(mutant, outcome, started.elapsed());
        report.lock().expect("no worker panics").add(tried)
    };
    in_parallel(args.jobs.into(), sample.iter().collect(), begin, work)?;
    report.into_inner().expect("no worker panicked").print();
    Ok(())
}

/// Draws the sample, which is the same everywhere for the same seed.
fn draw(mut all: Vec<Mutant>, args: &Args) -> Vec<Mutant> {
    if !args.only.is_empty() {
        all.retain(|mutant| args.only.iter().any(|text| mutant.place().contains(text)));
    }
    fastrand::Rng::with_seed(args.seed).shuffle(&mut all);
    all.truncate(args.sample);
    all.sort_by_cached_key(|mutant| (mutant.source.path.clone(), mutant.range.start));
    all
}

/// Returns true if the searched crates should contain the mutant `name` but do not.
fn is_stale(name: &str, all: &[Mutant], crates: &[&Crate]) -> bool {
    let searched = |krate: &&Crate| name.starts_with(&format!("crates/{}/", krate.folder));
    crates.iter().any(searched) && !all.iter().any(|mutant| mutant.name() == name)
}
