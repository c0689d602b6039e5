//! The bars that our global allocator is meant to stay below.
//!
//! A bar is shown only if the run has every figure that it needs.

use benches::{c_programs, programs, workload::Group};
use serde::Serialize;

use super::{
    entrant::{LIBMIMALLOC_V2, LIBOBMALLOC, MIMALLOC_V3, OBMALLOC},
    results::{FAULTS, Measured, PEAK, Results, TIME},
    verdict::Columns,
};
use crate::report::{Figures, Part, Table};

/// A bar, and what the run measured.
#[derive(Debug, Serialize)]
pub(super) struct Bar {
    name: String,
    /// The ratio of ours to the other allocator, or a plain figure.
    measured: f64,
    most: f64,
    held: bool,
    /// The allocator and the workload that decided, if there are several.
    at: String,
}

impl Bar {
    fn new(name: impl Into<String>, (measured, at): (f64, String), most: f64) -> Self {
        Self { name: name.into(), measured, most, held: measured <= most, at }
    }
}

/// The allocator with which ours is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rival {
    MimallocV3,
    /// Version 2 of mimalloc as a preloaded library.
    LibmimallocV2,
    /// The peer with the lowest figure.
    Best,
}

/// How the figures of several workloads become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The geometric mean of the ratios.
    Mean(Rival),
    /// The largest ratio.
    Worst(Rival),
    /// The largest figure of ours, without a ratio.
    Largest,
}

struct Goal {
    name: String,
    group: Group,
    measured: Measured,
    workloads: Vec<String>,
    rule: Rule,
    most: f64,
}

/// The sizes of 1 KiB to 1 MiB, and whether each is a power of four.
const LARGER: [(&str, bool); 7] = [
    ("1 KiB", true),
    ("2 KiB", false),
    ("4 KiB", true),
    ("16 KiB", true),
    ("64 KiB", true),
    ("256 KiB", true),
    ("1 MiB", true),
];

const SMALL: [&str; 6] = ["16 B", "32 B", "64 B", "128 B", "256 B", "512 B"];

const VECTORS: [&str; 2] = ["vector to 16 MiB, realloc", "vector to 16 MiB, push"];

const MIXED: [&str; 4] = [
    "slots, 2 threads",
    "slots, 4 threads",
    "freed elsewhere, 2 threads",
    "freed elsewhere, 4 threads",
];

const DOCUMENT: &str = "document (serde_json)";

fn goals() -> Vec<Goal> {
    use Rival::{Best, LibmimallocV2, MimallocV3};
    use Rule::{Largest, Mean, Worst};
    let goal = |name: &str, group, measured, workloads, rule, most| Goal {
        name: name.to_owned(),
        group,
        measured,
        workloads,
        rule,
        most,
    };
    let sizes =
        |name: &str, workloads, rule, most| goal(name, Group::Sizes, TIME, workloads, rule, most);
    let both = |size: &str| [format!("pair {size}"), format!("batch {size}")];
    let larger = LARGER.iter().flat_map(|(size, _)| both(size)).collect();
    let mut goals =
        vec![sizes("pairs and batches, 1 KiB to 1 MiB, mean", larger, Mean(MimallocV3), 0.7)];
    for (size, _) in LARGER.iter().filter(|(_, is_power_of_four)| *is_power_of_four) {
        goals.push(sizes(
            &format!("pair and batch, {size}, each"),
            both(size).to_vec(),
            Worst(Best),
            1.0,
        ));
    }
    goals.push(sizes("vectors to 16 MiB, each", owned(&VECTORS), Worst(Best), 1.0));
    let all = || owned(&programs::NAMES);
    let of_programs = |name: &str, measured, workloads, rule, most| {
        goal(name, Group::Programs, measured, workloads, rule, most)
    };
    goals.extend([
        of_programs("programs, time, mean", TIME, all(), Mean(MimallocV3), 0.97),
        of_programs("programs, time, each", TIME, all(), Worst(MimallocV3), 1.05),
        of_programs(DOCUMENT, TIME, owned(&[DOCUMENT]), Worst(MimallocV3), 1.0),
        of_programs("programs, peak memory, mean", PEAK, all(), Mean(MimallocV3), 0.9),
        of_programs("programs, peak memory, each", PEAK, all(), Worst(MimallocV3), 1.1),
        of_programs("programs, page faults beyond the peak", FAULTS, all(), Largest, 2_000.0),
        goal("mixed, 2 and 4 threads, mean", Group::Mixed, TIME, owned(&MIXED), Mean(Best), 0.85),
        goal(
            "programs in C, mean",
            Group::C,
            TIME,
            owned(&c_programs::NAMES),
            Mean(LibmimallocV2),
            0.9,
        ),
    ]);
    let small = SMALL.map(|size| format!("pair {size}")).to_vec();
    goals.push(sizes("pairs, 16 to 512 bytes, each", small, Worst(MimallocV3), 1.0));
    goals
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

pub(super) fn bars(results: &Results) -> Vec<Bar> {
    let mut bars: Vec<_> = goals().iter().filter_map(|goal| goal.bar(results)).collect();
    for run in results.fragmentation.iter().filter(|run| run.entrant == OBMALLOC) {
        let nothing = String::new;
        bars.push(Bar::new("fragmentation, resident / live", (run.highest(), nothing()), 1.2));
        let name = "fragmentation, last / second quarter";
        bars.push(Bar::new(name, (run.creep(), nothing()), 1.03));
    }
    bars
}

impl Goal {
    fn bar(&self, results: &Results) -> Option<Bar> {
        let figures = results.figures(self.group, self.measured);
        let columns = Columns::of(&results.entrants_of(self.group));
        let decided = self.decided(&figures, &columns.peers)?;
        Some(Bar::new(self.name.clone(), decided, self.most))
    }

    /// Returns the number that is compared with the bar, and where it was measured.
    fn decided(&self, figures: &Figures, peers: &[usize]) -> Option<(f64, String)> {
        let row = |name: &String| figures.rows.iter().position(|(row, _)| row == name);
        let rows: Vec<_> = self.workloads.iter().map(row).collect::<Option<_>>()?;
        let column = |name: &str| figures.columns.iter().position(|one| one == name);
        let ours = column(if self.group == Group::C { LIBOBMALLOC } else { OBMALLOC })?;
        let rivals = |rival| match rival {
            Rival::MimallocV3 => column(MIMALLOC_V3).into_iter().collect(),
            Rival::LibmimallocV2 => column(LIBMIMALLOC_V2).into_iter().collect(),
            Rival::Best => peers.to_vec(),
        };
        let peer = |peer: usize| figures.columns[peer].clone();
        let both = |row: usize, at: usize| format!("{}: {}", figures.rows[row].0, peer(at));
        match self.rule {
            Rule::Mean(rival) => largest(rivals(rival).into_iter().filter_map(|at| {
                let has_all = rows.iter().all(|row| figures.ratio(*row, (ours, at)).is_some());
                has_all.then(|| Some((figures.mean(&rows, (ours, at))?, peer(at))))?
            })),
            Rule::Worst(rival) => {
                let rivals: Vec<usize> = rivals(rival);
                let worst = |row: &usize| {
                    let ratio =
                        |at: &usize| Some((figures.ratio(*row, (ours, *at))?, both(*row, *at)));
                    largest(rivals.iter().filter_map(ratio))
                };
                largest(rows.iter().map(worst).collect::<Option<Vec<_>>>()?.into_iter())
            }
            Rule::Largest => {
                let figure =
                    |row: &usize| Some((figures.value(*row, ours)?, figures.rows[*row].0.clone()));
                largest(rows.iter().map(figure).collect::<Option<Vec<_>>>()?.into_iter())
            }
        }
    }
}

/// Returns the largest number, together with its description.
fn largest(all: impl Iterator<Item = (f64, String)>) -> Option<(f64, String)> {
    all.max_by(|one, other| one.0.total_cmp(&other.0))
}

pub(super) fn parts(results: &Results) -> Vec<Part> {
    let bars = bars(results);
    if bars.is_empty() {
        return Vec::new();
    }
    let mut table = Table::new(["bar", "measured", "at most", "held", "where"]);
    for bar in bars {
        let decimals = if bar.most < 100.0 { 2 } else { 0 };
        let number = |number: f64| format!("{number:.decimals$}");
        let held = if bar.held { "yes" } else { "NO" };
        table.add([bar.name, number(bar.measured), number(bar.most), held.to_owned(), bar.at]);
    }
    let caption = format!("bars: {OBMALLOC} / {MIMALLOC_V3}, or / the best peer of those compared");
    vec![Part::Heading("bars".to_owned()), Part::Table(caption, table)]
}

#[cfg(test)]
mod tests {
    use benches::worker::every_workload;

    use super::*;

    #[test]
    fn every_goal_names_existing_workloads() {
        let all = every_workload();
        for goal in goals() {
            for name in &goal.workloads {
                let exists = all.iter().any(|one| one.group == goal.group && one.name == *name);
                assert!(exists, "{}: {name}", goal.name);
            }
        }
    }

    fn goal(workloads: &[&str], rule: Rule) -> Goal {
        let workloads = owned(workloads);
        let (group, measured) = (Group::Sizes, TIME);
        Goal { name: "a goal".to_owned(), group, measured, workloads, rule, most: 1.0 }
    }

    /// Returns the figures of two workloads, `w` and `v`, on ours and two peers.
    fn figures() -> Figures {
        let columns = [(OBMALLOC, 4.0), (MIMALLOC_V3, 8.0), ("quick", 2.0)];
        let mut figures = Figures::example(&columns);
        let second = [4.0, 2.0, 4.0].map(|value| Some(crate::report::Figure::plain(value)));
        figures.rows.push(("v".to_owned(), second.to_vec()));
        figures
    }

    fn decided(rule: Rule) -> (f64, String) {
        goal(&["w", "v"], rule).decided(&figures(), &[1, 2]).unwrap()
    }

    #[test]
    fn a_mean_is_that_of_the_one_peer_that_needs_least() {
        let (mean, peer) = decided(Rule::Mean(Rival::Best));
        assert!((mean - 2.0_f64.sqrt()).abs() < 1e-9 && peer == "quick", "{mean} {peer}");
        let (mean, peer) = decided(Rule::Mean(Rival::MimallocV3));
        assert!((mean - 1.0).abs() < 1e-9 && peer == MIMALLOC_V3, "{mean} {peer}");
    }

    #[test]
    fn the_worst_ratio_names_its_workload_and_peer() {
        let mut figures = figures();
        figures.rows[1].1[2] = Some(crate::report::Figure::plain(1.0));
        let goal = goal(&["w", "v"], Rule::Worst(Rival::Best));
        assert_eq!(goal.decided(&figures, &[1, 2]), Some((4.0, "v: quick".to_owned())));
        assert_eq!(decided(Rule::Worst(Rival::MimallocV3)), (2.0, "v: mimalloc v3".to_owned()));
    }

    #[test]
    fn a_bar_needs_all_its_workloads_and_the_rival() {
        let partly = goal(&["w", "missing"], Rule::Mean(Rival::Best));
        assert_eq!(partly.decided(&figures(), &[1, 2]), None);
        let mut figures = figures();
        figures.columns[1] = "mimalloc v9".to_owned();
        let goal = goal(&["w"], Rule::Worst(Rival::MimallocV3));
        assert_eq!(goal.decided(&figures, &[1, 2]), None);
    }

    #[test]
    fn a_bar_holds_up_to_its_limit() {
        let bar = |measured| Bar::new("a bar", (measured, String::new()), 1.0);
        assert!(bar(1.0).held && !bar(1.01).held);
    }
}
