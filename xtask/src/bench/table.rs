//! The report, as text.

use std::fmt;

use benches::workload::Group;
use comfy_table::{CellAlignment, Table, presets};

use super::{
    entrant::Role,
    results::Results,
    verdict::{self, Measure, OVERHEAD, PEAK, TIME},
};

/// All tables of a run.
pub(super) struct Report<'a>(pub(super) &'a Results);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(results) = self;
        for group in results.groups() {
            for measure in [TIME, OVERHEAD] {
                if let Some(table) = values(results, group, measure) {
                    write!(f, "\n{}: {}, {}\n{table}\n", group.name(), measure.name, measure.unit)?;
                }
            }
            for ours in results.with_role(Role::Ours) {
                for measure in [TIME, PEAK] {
                    if let Some(table) = ratios(results, group, ours, measure) {
                        let (group, name) = (group.name(), measure.name);
                        write!(f, "\n{group}: {ours}: {name}, ours / theirs\n{table}\n")?;
                    }
                }
                if let Some((peer, ratio)) = verdict::best_peer(results, group, ours) {
                    writeln!(f, "  the best peer: {peer}; ours takes {ratio:.2} of its time")?;
                }
                for line in verdict::losses(results, group, ours) {
                    writeln!(f, "  a peer wins: {line}")?;
                }
            }
        }
        about(results, f)
    }
}

/// What the figures were measured on.
fn about(results: &Results, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "\n{}", results.machine)?;
    for one in results.entrants.iter().filter(|one| !one.version.is_empty()) {
        writeln!(f, "  {}: {}", one.name, one.version)?;
    }
    for one in &results.left_out {
        writeln!(f, "  LEFT OUT: {one}")?;
    }
    write!(f, "{}", results.method())
}

/// The figures themselves; `None` where there are none.
fn values(results: &Results, group: Group, measure: Measure) -> Option<Table> {
    let names: Vec<_> = results.names_in(group).collect();
    let mut table = empty("workload", names.iter().copied());
    let mut any = false;
    for workload in results.workloads(group) {
        let value = |name: &&str| measure.value(results, group, workload, name);
        if !names.iter().any(|name| value(name).is_some()) {
            continue;
        }
        any = true;
        let cell = |name: &&str| figure(results, group, measure, workload, name);
        table.add_row([workload.to_owned()].into_iter().chain(names.iter().map(cell)));
    }
    any.then(|| right(table))
}

/// `None` when ours has run nothing of the group.
fn ratios(results: &Results, group: Group, ours: &str, measure: Measure) -> Option<Table> {
    let others = results.others_in(group);
    let mut table = empty("workload", [measure.unit].into_iter().chain(others.iter().copied()));
    let mut any = false;
    for workload in results.workloads(group) {
        let Some(value) = measure.value(results, group, workload, ours) else { continue };
        any = true;
        let ratio = |other: &&str| cell(measure.ratio(results, group, workload, ours, other));
        let first = [workload.to_owned(), short(value)];
        table.add_row(first.into_iter().chain(others.iter().map(ratio)));
    }
    for (name, workloads) in verdict::parts(results, group) {
        let mean = |other: &&str| cell(measure.mean(results, group, &workloads, ours, other));
        let means = others.iter().map(mean);
        table.add_row([name, String::new()].into_iter().chain(means));
    }
    any.then(|| right(table))
}

/// A figure, and with a time how far the rounds reach.
pub(super) fn figure(
    results: &Results,
    group: Group,
    measure: Measure,
    workload: &str,
    name: &str,
) -> String {
    let value = measure.value(results, group, workload, name).map(short);
    let spread = results.figure(group, workload, name).map(|one| one.spread * 100.0);
    match (value, spread) {
        (Some(value), Some(spread)) if measure.unit == TIME.unit => {
            format!("{value} ({spread:.0} %)")
        }
        (Some(value), _) => value,
        (None, _) => "–".to_owned(),
    }
}

/// A value with as many digits as tell something.
fn short(value: f64) -> String {
    if value < 1000.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

fn cell(ratio: Option<f64>) -> String {
    ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"))
}

fn empty<'a>(first: &'a str, rest: impl Iterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([first].into_iter().chain(rest));
    table
}

fn right(mut table: Table) -> Table {
    table.column_iter_mut().skip(1).for_each(|column| {
        column.set_cell_alignment(CellAlignment::Right);
    });
    table
}
