//! A program in turn on CPython's own allocator, on malloc and on ours, side by side.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use testkit::pythons::Python;

use super::{
    Program,
    measure::{self, Cost},
    ratio::{geometric_mean, median},
    report,
};

/// Whose memory a run lives on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Allocator {
    CPython,
    Malloc,
    Ours,
}

use Allocator::{CPython, Malloc, Ours};

const ALL: [Allocator; 3] = [CPython, Malloc, Ours];

impl Allocator {
    fn command(self, program: &Program, python: &Python, library: &Path) -> Command {
        let mut command = program.command(python);
        match self {
            CPython => &mut command,
            Malloc => command.env("PYTHONMALLOC", "malloc"),
            Ours => command.env("LD_PRELOAD", library),
        };
        command
    }
}

/// The medians of one program on each allocator, in the order of [`ALL`].
struct Row {
    name: String,
    wall: [f64; 3],
    cpu: [f64; 3],
    peak: [f64; 3],
    served: f64,
}

/// Compares over `rounds` rounds, and prints a table.
pub(crate) fn run(
    library: &Path,
    python: &Python,
    programs: &[Program],
    rounds: u32,
) -> Result<()> {
    ensure!(python.is_supported(), "{} is not supported", python.name());
    let steps = programs.len() as u64 * (u64::from(rounds) * 3 + 1);
    let style = "{bar:40} {pos}/{len} {elapsed} (about {eta} left) {msg}";
    let bar = ProgressBar::new(steps).with_style(ProgressStyle::with_template(style)?);
    let measured: Result<Vec<Row>> = programs
        .iter()
        .map(|program| measure_program(library, python, program, rounds, &bar))
        .collect();
    bar.finish_and_clear();
    let rows = measured?;
    println!("CPython {}: medians of {rounds} rounds", python.name());
    println!("{}", table(&rows));
    println!("{}", means(&rows));
    Ok(())
}

fn measure_program(
    library: &Path,
    python: &Python,
    program: &Program,
    rounds: u32,
    bar: &ProgressBar,
) -> Result<Row> {
    bar.set_message(program.name.clone());
    let served = served(library, python, program)?;
    bar.inc(1);
    let mut costs: [Vec<Cost>; 3] = Default::default();
    for round in 0..rounds as usize {
        // Each allocator is first, second and third in turn.
        for place in (0..3).map(|step| (round + step) % 3) {
            costs[place].push(measure::run(&mut ALL[place].command(program, python, library))?);
            bar.inc(1);
        }
    }
    let first = &costs[0][0].output;
    let same = costs.iter().flatten().all(|cost| cost.output == *first);
    ensure!(same, "{} does not print the same on every allocator", program.name);
    let medians = |of: fn(&Cost) -> f64| costs.each_ref().map(|runs| median(runs.iter().map(of)));
    Ok(Row {
        name: program.name.clone(),
        wall: medians(|cost| cost.wall),
        cpu: medians(|cost| cost.cpu),
        peak: medians(|cost| cost.peak),
        served,
    })
}

/// The share of small requests that we serve, from a run of its own: counting costs time.
fn served(library: &Path, python: &Python, program: &Program) -> Result<f64> {
    let (process, reports, stderr) = report::collect(program.command(python), library)?;
    let own = reports.iter().find(|report| report.pid == process);
    let own = own.with_context(|| format!("{} left no report\n{stderr}", program.name))?;
    ensure!(own.in_force, "not on our heap: {}", own.reason.as_deref().unwrap_or("reason unknown"));
    Ok(own.served.as_ref().map_or(0.0, |served| served.share))
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "program",
        "CPython s",
        "malloc s",
        "ours s",
        "wall",
        "CPU",
        "CPython MiB",
        "malloc MiB",
        "ours MiB",
        "peak",
        "served",
    ]);
    for row in rows {
        let seconds = row.wall.map(|wall| format!("{wall:.3}"));
        let mebibytes = row.peak.map(|peak| format!("{:.1}", peak / 1024.0));
        let mut cells = vec![row.name.clone()];
        cells.extend(seconds);
        cells.extend([ratio(row.wall), ratio(row.cpu)].map(|ratio| format!("{ratio:.3}")));
        cells.extend(mebibytes);
        cells.push(format!("{:.3}", ratio(row.peak)));
        cells.push(format!("{:.2} %", 100.0 * row.served));
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Ours to CPython's own.
fn ratio(medians: [f64; 3]) -> f64 {
    medians[2] / medians[0]
}

fn means(rows: &[Row]) -> String {
    let mean = |of: fn(&Row) -> [f64; 3]| geometric_mean(rows.iter().map(|row| ratio(of(row))));
    format!(
        "ours / CPython's own, geometric mean: wall {:.3}, CPU {:.3}, peak RSS {:.3}",
        mean(|row| row.wall),
        mean(|row| row.cpu),
        mean(|row| row.peak),
    )
}
