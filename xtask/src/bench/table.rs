//! The report, as text.

use std::fmt;

use benches::workload::Group;
use comfy_table::{CellAlignment, Table, presets};

use super::{
    entrant::Role,
    results::Results,
    verdict::{Measure, PEAK, TIME, losses},
};

/// All tables of a run.
pub(super) struct Report<'a>(pub(super) &'a Results);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(results) = self;
        for group in results.groups() {
            writeln!(
                f,
                "\n{}: {}, {}\n{}",
                group.name(),
                TIME.name,
                TIME.unit,
                times(results, group)
            )?;
            for ours in results.with_role(Role::Ours) {
                for measure in [TIME, PEAK] {
                    if let Some(table) = ratios(results, group, ours, measure) {
                        let (group, name) = (group.name(), measure.name);
                        writeln!(f, "\n{group}: {ours}: {name}, ours / theirs\n{table}")?;
                    }
                }
            }
            writeln!(f, "\n{}: where a peer is faster", group.name())?;
            for loss in losses(results, group) {
                let (ours, peer) = (&loss.ours, &loss.peer);
                writeln!(f, "  {}: {ours} takes {:.2} of {peer}", loss.workload, loss.ratio)?;
            }
        }
        about(results, f)
    }
}

/// What the figures were measured on.
fn about(results: &Results, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let machine = &results.machine;
    writeln!(
        f,
        "\n{} ({} at once), {:.1} GiB, {}, {}\n{} UTC, commit {}, load {} at the end",
        machine.processor,
        machine.cores,
        machine.memory as f64 / f64::from(1 << 30),
        machine.system,
        machine.compiler,
        machine.date,
        machine.commit,
        machine.load,
    )?;
    for one in results.entrants.iter().filter(|one| !one.version.is_empty()) {
        writeln!(f, "  {}: {}", one.name, one.version)?;
    }
    write!(
        f,
        "medians of {} rounds, in each a process of its own with {} chunks; in brackets how far \
         the middle half of the rounds reaches",
        results.rounds, results.chunks
    )
}

fn times(results: &Results, group: Group) -> Table {
    let names: Vec<_> = results.entrants.iter().map(|one| one.name.as_str()).collect();
    let mut table = empty("workload", names.iter().copied());
    for workload in results.workloads(group) {
        let cell = |name: &&str| match results.figure(group, workload, name) {
            Some(one) => format!("{:.2} ({:.0} %)", one.nanoseconds, one.spread * 100.0),
            None => "–".to_owned(),
        };
        table.add_row([workload.to_owned()].into_iter().chain(names.iter().map(cell)));
    }
    right(table)
}

/// `None` when ours has run nothing of the group.
fn ratios(results: &Results, group: Group, ours: &str, measure: Measure) -> Option<Table> {
    let theirs = |role| results.with_role(role);
    let others: Vec<_> = theirs(Role::Least).chain(theirs(Role::Peer)).collect();
    let mut table = empty("workload", [measure.unit].into_iter().chain(others.iter().copied()));
    let mut any = false;
    for workload in results.workloads(group) {
        let Some(value) = measure.value(results, group, workload, ours) else { continue };
        any = true;
        let ratio = |other: &&str| cell(measure.ratio(results, group, workload, ours, other));
        let first = [workload.to_owned(), format!("{value:.2}")];
        table.add_row(first.into_iter().chain(others.iter().map(ratio)));
    }
    let mean = |other: &&str| cell(measure.mean(results, group, ours, other));
    let first = ["geometric mean".to_owned(), String::new()];
    table.add_row(first.into_iter().chain(others.iter().map(mean)));
    any.then(|| right(table))
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
