//! Runs a program on several allocators, and compares its time and memory.

#![forbid(unsafe_code)]

use std::{collections::BTreeMap, env};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::{
    failure::{Failure, NO, Result},
    libraries::Libraries,
    measure::{self, Cost, Run},
    output::print,
    program,
    reports::{Report, Reports, Share},
    side::Side,
    table::Table,
    target::{Invocation, Target},
};

/// Runs a program on several allocators in turn, and compares its time and memory.
///
/// The program gets no input, and its output is not shown. If the program fails, the comparison
/// fails.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The number of runs on each allocator.
    #[arg(long, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// The allocators: cpython, malloc, obmalloc, or the path of a library that replaces malloc.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "cpython,malloc,obmalloc"
    )]
    on: Vec<Side>,
    /// Prints every run as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// The output of one run of a program on our heap, and the requests that the heap counted.
#[derive(Debug)]
pub struct Counted {
    /// The output of the program to stdout.
    pub stdout: Vec<u8>,
    /// The share of requests that our heap served in the program and in the processes that it
    /// started.
    pub share: Share,
}

/// Runs `invocation` on our heap and counts its requests.
///
/// # Errors
///
/// Fails if the program fails, or if its first process does not use our heap.
pub fn count(invocation: &Invocation, libraries: &Libraries) -> Result<Counted> {
    let reports = Reports::new()?;
    let mut command = Side::Obmalloc.command(invocation, libraries)?;
    reports.ask(&mut command);
    let run = measure::run(&mut command);
    let Run { pid, stdout, .. } = run.map_err(|failure| advised(failure, &Side::Obmalloc))?;
    let reports = reports.read()?;
    require_in_force(&reports, pid)?;
    Ok(Counted { stdout, share: Share::of(reports.values()) })
}

/// Says on which allocator the program failed, and what to try.
fn advised(failure: Failure, side: &Side) -> Failure {
    failure.remedy(format!(
        "run it without `obmalloc compare`. If it succeeds, it fails on the allocator {side}"
    ))
}

/// Fails unless the process `pid` used our heap.
///
/// A process that does not run Python writes no report. In this case, the first report of its
/// children counts.
fn require_in_force(reports: &BTreeMap<u32, Report>, pid: u32) -> Result<()> {
    let report = reports.get(&pid).or(reports.values().next());
    if report.is_some_and(|report| report.in_force) {
        return Ok(());
    }
    let reason = report.and_then(|report| report.reason.clone());
    let reason = reason.unwrap_or("the library left no report of a Python".to_owned());
    Err(Failure::new("our heap is not in force in the program").because(reason).code(NO))
}

#[derive(Debug, Serialize)]
struct Measured {
    schema: u32,
    program: String,
    rounds: u16,
    sides: Vec<Runs>,
}

#[derive(Debug, Serialize)]
struct Runs {
    allocator: String,
    wall_seconds: Vec<f64>,
    processor_seconds: Vec<f64>,
    peak_bytes: Vec<f64>,
}

/// Measures the program of `args` and prints tables.
///
/// # Errors
///
/// Fails if the program fails, or if a run that should use our heap does not use it.
pub fn run(args: &Args) -> Result<()> {
    let invocation = args.target.invocation(&env::args_os().collect::<Vec<_>>())?;
    if let Some(remark) = program::check(&invocation.path)? {
        eprintln!("obmalloc: {remark}");
    }
    let libraries = Libraries::find()?;
    let counted = match args.on.contains(&Side::Obmalloc) {
        true => Some(count(&invocation, &libraries)?),
        false => None,
    };
    let measured = measure_sides(args, &invocation, &libraries)?;
    if args.json {
        return print(serde_json::to_string_pretty(&measured).unwrap_or_default() + "\n");
    }
    let Measured { program, rounds, .. } = &measured;
    print(format!("{program}, medians of {rounds} rounds:\n{}\n", measured.table()))?;
    if let Some(Counted { share, .. }) = counted {
        let (small, all) = (share.of_small() * 100.0, share.of_all() * 100.0);
        print(format!(
            "our heap served {small:.2} % of requests up to 512 bytes, {all:.2} % of all\n"
        ))?;
    }
    Ok(())
}

fn measure_sides(args: &Args, invocation: &Invocation, libraries: &Libraries) -> Result<Measured> {
    let bar = progress_bar(args.on.len() * usize::from(args.rounds));
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); args.on.len()];
    for round in 0..usize::from(args.rounds) {
        // Each round begins with a different allocator, so that a slow phase of the machine affects
        // all allocators equally.
        for place in 0..args.on.len() {
            let side = (place + round) % args.on.len();
            bar.set_message(args.on[side].to_string());
            let mut command = args.on[side].command(invocation, libraries)?;
            let run = measure::run(&mut command);
            costs[side].push(run.map_err(|failure| advised(failure, &args.on[side]))?.cost);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let sides = args.on.iter().zip(costs).map(|(side, costs)| Runs::new(side, &costs)).collect();
    Ok(Measured { schema: 1, program: invocation.short_name(), rounds: args.rounds, sides })
}

fn progress_bar(runs: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} on {msg} ({elapsed})");
    ProgressBar::new(runs as u64).with_style(style.expect("the template is well-formed"))
}

impl Runs {
    fn new(side: &Side, costs: &[Cost]) -> Self {
        let all = |of: fn(&Cost) -> f64| costs.iter().map(of).collect();
        Self {
            allocator: side.to_string(),
            wall_seconds: all(|cost| cost.wall),
            processor_seconds: all(|cost| cost.cpu),
            peak_bytes: all(|cost| cost.peak),
        }
    }
}

impl Measured {
    fn table(&self) -> Table {
        let mut header = vec!["".to_owned()];
        header.extend(self.sides.iter().map(|side| side.allocator.clone()));
        let ours = self.sides.iter().position(|side| side.allocator == Side::Obmalloc.to_string());
        let others =
            || (0..self.sides.len()).filter(move |at| ours.is_some_and(|ours| *at != ours));
        header.extend(others().map(|at| format!("obmalloc / {}", self.sides[at].allocator)));
        let mut table = Table::new(header);
        type Of = fn(&Runs) -> &Vec<f64>;
        let measures: [(_, f64, Of); 3] = [
            ("wall time, s", 1.0, |runs| &runs.wall_seconds),
            ("processor time, s", 1.0, |runs| &runs.processor_seconds),
            ("peak of resident memory, MiB", f64::from(1 << 20), |runs| &runs.peak_bytes),
        ];
        for (name, unit, of) in measures {
            let medians: Vec<_> = self.sides.iter().map(|side| median(of(side)) / unit).collect();
            let mut row = vec![name.to_owned()];
            row.extend(medians.iter().map(|median| format!("{median:.3}")));
            let ratio = |at| ours.map_or(f64::NAN, |ours: usize| medians[ours] / medians[at]);
            row.extend(others().map(|at: usize| format!("{:.3}", ratio(at))));
            table.add(row);
        }
        table
    }
}

/// Returns the middle of `values`, or the mean of the two in the middle.
///
/// # Panics
///
/// Panics if `values` is empty.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len() - 1;
    f64::midpoint(sorted[last / 2], sorted[last.div_ceil(2)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_medians_and_our_ratio_to_each_other_allocator() {
        let runs = |side: Side, walls: &[f64]| {
            let cost = |wall: &f64| Cost { wall: *wall, cpu: 1.0, peak: 1048576.0 };
            Runs::new(&side, &walls.iter().map(cost).collect::<Vec<_>>())
        };
        let sides = vec![
            runs(Side::CPython, &[9.0, 4.0, 3.0]),
            runs(Side::Obmalloc, &[1.0, 3.0]),
            runs(Side::Library("/x/libother.so".into()), &[8.0]),
        ];
        let measured = Measured { schema: 1, program: "p".to_owned(), rounds: 3, sides };
        let text = measured.table().to_string();
        let line = text.lines().find(|line| line.contains("wall time")).unwrap();
        let numbers: Vec<_> = line.split('┆').skip(1).map(str::trim).collect();
        assert_eq!(numbers[..3], ["4.000", "2.000", "8.000"], "{text}");
        assert!(numbers[3] == "0.500" && numbers[4].starts_with("0.250"), "{text}");
        assert!(text.contains("obmalloc / libother.so"), "{text}");
    }

    #[test]
    fn an_allocator_is_named_by_a_word_or_a_path() {
        assert_eq!("obmalloc".parse(), Ok(Side::Obmalloc));
        assert!("jemalloc".parse::<Side>().unwrap_err().to_string().contains("cpython, malloc"));
        assert!("/nowhere/x.so".parse::<Side>().unwrap_err().to_string().contains("x.so"));
    }
}
