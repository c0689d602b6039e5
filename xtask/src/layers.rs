//! Measures what each layer contributes: programs on malloc alone, with pools, and with caches.
//!
//! Each run is a separate process, because the kernel records the peak of memory for each process.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{
    process,
    report::{self, Figures, Measure, Table},
    tally::Tally,
    workspace,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Programs of examples/objects [default: all of them]
    programs: Vec<String>,
    /// How often each program runs on each choice of layers.
    #[arg(long, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Draws the times as an SVG image, too.
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
}

const CHOICES: [(&str, &[&str]); 3] =
    [("malloc alone", &[]), ("+ pools", &["--pools"]), ("+ caches", &["--pools", "--caches"])];

#[derive(Clone, Debug, Deserialize)]
struct Outcome {
    printed: String,
    seconds: Vec<f64>,
    peak_kib: Option<u64>,
    hits: u64,
    /// The number of objects whose storage came from the allocator below the caches.
    misses: u64,
}

type Outcomes = Vec<Vec<Outcome>>;

pub(crate) fn run(args: Args) -> Result<()> {
    let runtime = workspace::build("objects", "release", "objects")?;
    let programs = if args.programs.is_empty() { programs(&runtime)? } else { args.programs };
    let outcomes = measure(&runtime, &programs, args.rounds.into())?;
    println!("medians of {} rounds", args.rounds);
    let all = figures(&programs, &outcomes);
    for figures in &all {
        let Measure { name, unit, .. } = figures.measure;
        let table = figures.table("program", &[0, 1, 2], &[(1, 0), (2, 0)]);
        table.into_iter().for_each(|table| println!("\n{name}, {unit}\n{table}"));
    }
    println!("\nrequests that the caches served\n{}", hits(&programs, &outcomes));
    if let Some(file) = args.chart {
        let chart = report::chart(&all[0], &[(1, 0), (2, 0)], &["+ pools", "+ caches"]);
        fs::write(&file, chart).with_context(|| format!("cannot write {}", file.display()))?;
        println!("drawn: {}", file.display());
    }
    Ok(())
}

/// Runs every program once on every choice of layers, as a step of `test-all`.
pub(crate) fn run_once() -> Result<Tally> {
    let runtime = workspace::build("objects", "dev", "objects")?;
    let programs = programs(&runtime)?;
    measure(&runtime, &programs, 1)?;
    Ok(Tally::of(programs.len() * CHOICES.len(), 0))
}

fn programs(runtime: &Path) -> Result<Vec<String>> {
    Ok(ask(runtime, &["--list"])?.lines().map(str::to_owned).collect())
}

/// Runs `programs` on every choice of layers, `rounds` times.
///
/// # Errors
///
/// Fails if a program does not print the same text in every run.
fn measure(runtime: &Path, programs: &[String], rounds: usize) -> Result<Vec<Outcomes>> {
    let names = CHOICES.map(|(name, _)| name);
    let outcomes = report::in_rounds(programs, &names, rounds, |program, choice| {
        let program = programs[program].as_str();
        let line = ask(runtime, &[&[program, "--json"], CHOICES[choice].1].concat())?;
        serde_json::from_str(&line).with_context(|| format!("{program} printed {line:?}"))
    })?;
    for (program, outcomes) in programs.iter().zip(&outcomes) {
        ensure_same(program, outcomes)?;
    }
    Ok(outcomes)
}

fn ensure_same(program: &str, outcomes: &[Vec<Outcome>]) -> Result<()> {
    let mut printed = outcomes.iter().flatten().map(|outcome| &outcome.printed);
    let first = printed.next();
    let is_same = printed.all(|line| Some(line) == first);
    ensure!(is_same, "{program} does not print the same on all layers: {outcomes:?}");
    Ok(())
}

fn ask(runtime: &Path, arguments: &[&str]) -> Result<String> {
    process::stdout_of(Command::new(runtime).args(arguments))
}

fn figures(programs: &[String], outcomes: &[Outcomes]) -> [Figures; 2] {
    let columns = CHOICES.map(|(name, _)| name);
    type Of = fn(&Outcome) -> f64;
    let measures: [(_, _, Of); 2] = [
        ("wall time", "ms", |outcome| outcome.seconds.iter().sum::<f64>() * 1e3),
        ("peak of resident memory", "MiB", |outcome| {
            outcome.peak_kib.unwrap_or_default() as f64 / 1024.0
        }),
    ];
    measures.map(|(name, unit, of)| {
        Figures::of_runs(Measure { name, unit, decimals: 1 }, &columns, programs, outcomes, of)
    })
}

fn hits(programs: &[String], outcomes: &[Outcomes]) -> Table {
    let mut table = Table::new(["program", "hits", "of all requests"]);
    for (program, choices) in programs.iter().zip(outcomes) {
        let Some(Outcome { hits, misses, .. }) = choices.iter().flatten().last() else { continue };
        let share = 100.0 * *hits as f64 / (hits + misses).max(1) as f64;
        table.add([program.clone(), hits.to_string(), format!("{share:.1} %")]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(seconds: [f64; 3], printed: [&str; 3]) -> Outcomes {
        let outcome = |at: usize| {
            let (printed, seconds) = (printed[at].to_owned(), vec![seconds[at]]);
            vec![Outcome { printed, seconds, peak_kib: Some(2048), hits: 3, misses: 1 }; 3]
        };
        (0..3).map(outcome).collect()
    }

    #[test]
    fn a_program_has_the_medians_of_time_and_memory_and_the_hits_of_the_caches() {
        let (programs, outcomes) = (["a".to_owned()], [outcomes([0.4, 0.2, 0.1], ["1"; 3])]);
        let [times, peaks] = figures(&programs, &outcomes);
        assert_eq!([(1, 0), (2, 0)].map(|pair| times.ratio(0, pair)), [Some(0.5), Some(0.25)]);
        assert_eq!(peaks.value(0, 2), Some(2.0));
        assert!(hits(&programs, &outcomes).to_string().contains("75.0 %"));
    }

    #[test]
    fn a_program_that_prints_something_else_on_one_choice_is_an_error() {
        let error = ensure_same("a", &outcomes([1.0; 3], ["1", "1", "2"])).unwrap_err();
        assert!(error.to_string().contains("a does not print the same"), "{error}");
    }
}
