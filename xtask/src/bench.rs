//! Our allocators and their peers, side by side.
//!
//! ```text
//!   entrants   who takes part: ours, the peers, the least       entrant.rs
//!      │ cargo build, a worker each                             build.rs
//!      ▼
//!   workers    what each can run, and its version               worker.rs
//!      │ round by round, the order rotated                      schedule.rs
//!      ▼
//!   results    all that was measured, and on what machine       results.rs, machine.rs
//!      │ medians, ratios, means, and where a peer wins          verdict.rs, reasons.rs
//!      └──► tables, JSON, a page                                table.rs, page.rs, chart.rs
//! ```
//!
//! Rules: a figure is a median over rounds, and a round runs every worker once, in a process of
//! its own; a worker that cannot be built or does not answer is named and left out.

mod build;
mod chart;
mod entrant;
pub(crate) mod instructions;
mod machine;
mod page;
mod python;
mod reasons;
mod results;
mod schedule;
mod table;
mod verdict;
mod worker;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use benches::workload::Weight;

use build::Programs;
use results::Results;
use worker::Worker;

/// The arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Runs only the workloads whose group and name hold this, as "batch" or "micro: pair 64". Those
    /// of Python, and then the programs, are looked at where no other has it: they take long to build.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Measures only these, by the names of the table, and what is ours; may be given several times.
    #[arg(long, value_name = "NAME")]
    against: Vec<String>,
    /// Leaves out what takes long to run or to build, and runs a chunk of each: under three minutes,
    /// once all is built.
    #[arg(long)]
    quick: bool,
    /// How many rounds there are.
    #[arg(long, value_name = "N", default_value_t = 11)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Writes everything that was measured.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes a page with charts.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Counts instructions instead of time, and writes docs/instructions.md.
    #[arg(long, conflicts_with_all = ["only", "against", "quick", "rounds", "json", "html"])]
    instructions: bool,
}

/// What `--json` writes.
#[derive(serde::Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    results: &'a Results,
    comparisons: Vec<verdict::Comparison<'a>>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let chunks = if args.quick { 1 } else { 7 };
    let chosen = entrant::chosen(&args.against)?;
    if args.instructions {
        return instructions::write(&chosen);
    }
    let only = args.only.as_deref();
    let folder = tempfile::tempdir()?;
    let mut left_out = Vec::new();
    let all = only.is_none() && !args.quick;
    let programs = if all { Programs::Included } else { Programs::Left };
    let mut workers = build::all(&chosen, programs, folder.path(), &mut left_out)?;
    let none_is_named =
        |workers: &[Worker]| schedule::tasks(workers, only, Weight::Huge).is_empty();
    if all || none_is_named(&workers) {
        match python::workers(only) {
            Ok(pythons) => workers.extend(pythons),
            Err(error) => left_out.push(format!("Python: {error:#}")),
        }
    }
    if none_is_named(&workers) {
        left_out.retain(|why| why.starts_with("Python"));
        workers = build::all(&chosen, Programs::Included, folder.path(), &mut left_out)?;
    }
    let most = if args.quick { Weight::Light } else { Weight::Huge };
    let tasks = schedule::tasks(&workers, only, most);
    let why = left_out.join("; ");
    ensure!(!tasks.is_empty(), "no workload has that in its name, or it takes long; {why}");
    let measured = schedule::run(&workers, &tasks, args.rounds, chunks, &mut left_out)?;
    let results = Results::new(&workers, measured, args.rounds, chunks, left_out);
    println!("{}", table::Report(&results));
    if let Some(path) = args.json {
        let written = Written { results: &results, comparisons: verdict::comparisons(&results) };
        write(&path, serde_json::to_string_pretty(&written)?)?;
    }
    if let Some(path) = args.html {
        write(&path, page::page(&results)?)?;
    }
    Ok(())
}

fn write(path: &Path, text: String) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
