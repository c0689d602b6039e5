//! What each layer brings to a runtime: the programs of `examples/objects`, layer by layer.
//!
//! ```text
//!   round 1                    round 2
//!   malloc  +pools  +caches    +pools  +caches  malloc    …    ─► a table, bars, a chart
//! ```
//!
//! Each run is a process of its own, so that its peak of memory is its own. The order turns from
//! round to round, so that what slows the machine down for a while slows all of them down.

#[cfg(test)]
mod alone;
mod chart;
mod objects;
mod table;

use std::path::PathBuf;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use crate::tally::Tally;
use objects::{Choice, Objects, Outcome, Profile};
use table::Row;

/// The arguments of `cargo xtask layers`.
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

pub(crate) fn run(args: Args) -> Result<()> {
    let objects = Objects::build(Profile::Release)?;
    let programs = if args.programs.is_empty() { objects.programs()? } else { args.programs };
    let rows = measure(&objects, &programs, args.rounds.into())?;
    println!("medians of {} rounds:\n{}", args.rounds, table::of(&rows));
    println!("{}", table::bars(&rows));
    if let Some(file) = args.chart {
        std::fs::write(&file, chart::svg(&rows)?)?;
        println!("drawn: {}", file.display());
    }
    Ok(())
}

/// Runs every program once on every choice of layers, as a step of the tests: all of them print
/// the same.
pub(crate) fn run_once() -> Result<Tally> {
    let objects = Objects::build(Profile::Dev)?;
    let programs = objects.programs()?;
    let rows = measure(&objects, &programs, 1)?;
    Ok(Tally::of(rows.len() * Choice::ALL.len(), 0))
}

/// Runs `programs` in turn on every choice of layers, `rounds` times.
fn measure(objects: &Objects, programs: &[String], rounds: usize) -> Result<Vec<Row>> {
    let bar = ProgressBar::new((programs.len() * rounds * Choice::ALL.len()) as u64);
    let style = "{bar:40} {pos}/{len}  {elapsed} of about {duration}  {msg}";
    bar.set_style(ProgressStyle::with_template(style)?);
    let mut seen = vec![[const { Vec::<Outcome>::new() }; Choice::ALL.len()]; programs.len()];
    for round in 0..rounds {
        for (program, outcomes) in programs.iter().zip(&mut seen) {
            for turn in 0..Choice::ALL.len() {
                let at = (turn + round) % Choice::ALL.len();
                bar.set_message(format!("{program} on {}", Choice::ALL[at].name()));
                outcomes[at].push(objects.run(program, Choice::ALL[at])?);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    programs.iter().zip(&seen).map(|(program, outcomes)| Row::new(program, outcomes)).collect()
}
