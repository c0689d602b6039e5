//! Measures our allocators and other allocators side by side.
//!
//! ```text
//!   entrants   the allocators that take part                   entrant.rs
//!      │ cargo builds a worker for each                        build.rs, python.rs, c_programs.rs
//!      ▼
//!   workers    what each can run, and its version              worker.rs
//!      │ round by round, in rotating order                     schedule.rs
//!      │ or all at once, for a given time                      fragmentation.rs
//!      ▼
//!   results    all figures, the machine and the versions       results.rs, machine.rs
//!      │ ratios, means, and where a peer needs less            verdict.rs
//!      │ the bars that ours is meant to stay below             bars.rs
//!      └──► text, JSON, a page                                 sections.rs
//! ```
//!
//! A figure is the median over all rounds. In each round, every worker process runs each workload
//! once.

mod bars;
mod build;
mod c_programs;
mod entrant;
mod fragmentation;
pub(crate) mod instructions;
mod machine;
mod memory;
mod python;
mod results;
mod schedule;
mod sections;
mod verdict;
mod worker;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use benches::{
    protocol::Listed,
    worker::every_workload,
    workload::{Group, Weight},
};

use crate::report;
use entrant::Entrant;
use machine::Machine;
use python::Pythons;
use results::Results;
use worker::Worker;

#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Runs only the workloads whose "group: name" contains this, as in "batch" or "micro: pair 64".
    /// Those of Python are searched only if no other workload matches.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Compares ours only with this allocator, by its name in the tables. May be repeated.
    #[arg(long, value_name = "NAME")]
    against: Vec<String>,
    /// Leaves out workloads and allocators that take long, and runs one chunk of each workload.
    /// This takes less than four minutes once everything is built.
    #[arg(long)]
    quick: bool,
    /// The number of rounds, which is 11 by default, or 5 with --quick.
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// The seconds of the fragmentation run, which are 600 by default, or 20 with --quick.
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Writes everything that was measured to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes a page with charts to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Counts instructions instead of measuring time, and writes docs/instructions.md.
    #[arg(long, conflicts_with_all = ["only", "against", "quick", "rounds", "seconds", "json", "html"])]
    instructions: bool,
    /// Measures memory over time instead, and writes docs/memory-over-time.md. With --only, measures
    /// the workloads whose "host: name" contains this, as in "Python: rounds", and writes no page.
    #[arg(long, conflicts_with_all = ["against", "quick", "rounds", "seconds", "json", "html", "instructions"])]
    memory: bool,
}

impl Args {
    fn wants(&self, listed: &Listed) -> bool {
        let name = format!("{}: {}", listed.group.name(), listed.name);
        self.names(&name) && (!self.quick || listed.weight == Weight::Light)
    }

    fn names(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|part| name.contains(part))
    }

    /// Returns the features of the workers that run `natives`.
    fn features(&self, natives: &[Listed]) -> &'static [&'static str] {
        let are_programs = natives.iter().any(|one| one.group == Group::Programs);
        if are_programs && (self.only.is_some() || !self.quick) { &["programs"] } else { &[] }
    }

    fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 5 } else { 11 })
    }

    fn seconds(&self) -> u64 {
        self.seconds.unwrap_or(if self.quick { 20 } else { 600 })
    }
}

pub(crate) fn run(args: Args) -> Result<()> {
    let (entrants, preloaded) = entrant::chosen(&args.against)?;
    if args.instructions {
        return instructions::write(&entrants);
    }
    if args.memory {
        return memory::run(args.only.as_deref());
    }
    let machine = Machine::new();
    let mut left_out = Vec::new();
    let wanted = every_workload().into_iter().filter(|one| args.wants(one));
    let (in_c, natives): (Vec<_>, Vec<_>) = wanted.partition(|one| one.group == Group::C);
    let wants_fragmentation = args.names(fragmentation::NAME);
    let is_native = !natives.is_empty() || wants_fragmentation;
    let may_be_python =
        if args.only.is_some() { !is_native && in_c.is_empty() } else { !args.quick };
    let pythons = if may_be_python { pythons(&args) } else { Ok(Vec::new()) };
    let pythons = pythons.unwrap_or_else(|error| {
        left_out.push(format!("Python: {error:#}"));
        Vec::new()
    });
    let any = is_native || !in_c.is_empty() || !pythons.is_empty();
    ensure!(any, nothing_matches(&args, &left_out));
    let folder = tempfile::tempdir()?;
    let mut workers = Vec::new();
    if is_native {
        let takes_part = |one: &Entrant| !natives.is_empty() || fragmentation::takes_part(one);
        let entrants: Vec<_> = entrants.into_iter().filter(takes_part).collect();
        workers = build::all(&entrants, args.features(&natives), folder.path(), &mut left_out)?;
    }
    if !in_c.is_empty() {
        workers.extend(c_programs::workers(&preloaded, folder.path(), &mut left_out)?);
    }
    workers.extend(pythons);
    let mut tasks = schedule::tasks(&workers, |one| args.wants(one));
    let measured = (args.rounds(), if args.quick { 1 } else { 7 });
    schedule::run(&workers, &mut tasks, measured, &mut left_out)?;
    let fragmentation = if wants_fragmentation {
        fragmentation::run(&workers, args.seconds(), &mut left_out)?
    } else {
        Vec::new()
    };
    let results = Results::new(machine, &workers, &tasks, measured, fragmentation, left_out);
    let parts = sections::parts(&results);
    parts.iter().for_each(|part| print!("{part}"));
    if let Some(path) = args.json {
        write(&path, json(&results)?)?;
    }
    if let Some(path) = args.html {
        write(&path, report::page("obmalloc and its peers", &parts))?;
    }
    Ok(())
}

fn json(results: &Results) -> Result<String> {
    let mut json = serde_json::to_value(results)?;
    json["comparisons"] = serde_json::to_value(verdict::comparisons(results))?;
    json["bars"] = serde_json::to_value(bars::bars(results))?;
    Ok(serde_json::to_string_pretty(&json)?)
}

/// Returns the workers of Python, or an error if `args` asks for none of their workloads.
fn pythons(args: &Args) -> Result<Vec<Worker>> {
    let pythons = Pythons::find()?;
    let listed = |worker: &Worker| worker.introduction.workloads.clone();
    let is_wanted = |worker: &Worker| listed(worker).iter().any(|one| args.wants(one));
    let first = names(&listed(&pythons.theirs[0]));
    ensure!(pythons.theirs.iter().any(is_wanted), "each version has workloads like {first}");
    pythons.workers()
}

fn nothing_matches(args: &Args, left_out: &[String]) -> String {
    let only = args.only.as_deref().unwrap_or_default();
    let quick = if args.quick { " that --quick runs" } else { "" };
    let mut text = format!("no workload{quick} has {only:?} in its \"group: name\"; there are:");
    for group in every_workload().chunk_by(|one, next| one.group == next.group) {
        text += &format!("\n  {}: {}", group[0].group.name(), names(group));
    }
    text += &format!("\n  {}", fragmentation::NAME);
    left_out.iter().for_each(|line| text += &format!("\n  {line}"));
    text
}

fn names(listed: &[Listed]) -> String {
    listed.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join("; ")
}

fn write(path: &Path, text: String) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_run_has_fewer_rounds_and_a_short_fragmentation_run() {
        let full = Args::default();
        assert_eq!((full.rounds(), full.seconds()), (11, 600));
        let quick = Args { quick: true, ..Args::default() };
        assert_eq!((quick.rounds(), quick.seconds()), (5, 20));
        let chosen = Args { rounds: Some(3), seconds: Some(60), ..quick };
        assert_eq!((chosen.rounds(), chosen.seconds()), (3, 60));
    }

    #[test]
    fn a_part_of_a_name_chooses_a_group_a_workload_or_the_fragmentation_run() {
        let only = |part: &str| Args { only: Some(part.to_owned()), ..Args::default() };
        let count = |part| every_workload().iter().filter(|one| only(part).wants(one)).count();
        assert_eq!(count("sizes: batch"), 15);
        assert_eq!(count("mixed: "), 5);
        assert_eq!(count("fragmentation"), 0);
        assert!(only("fragmentation").names(fragmentation::NAME));
        assert!(Args::default().names(fragmentation::NAME));
    }
}
