//! The table that a comparison comes to.

use std::{collections::BTreeSet, fmt};

use benches::figures::{geometric_mean, median};
use comfy_table::{CellAlignment, Table, presets};

use super::{measure::Cost, report::Share, side::Side};

/// What is measured: its name with its unit, and how it is read and written.
struct Metric {
    name: &'static str,
    of: fn(&Cost) -> f64,
    decimals: usize,
}

const METRICS: [Metric; 3] = [
    Metric { name: "wall, s", of: |cost| cost.wall, decimals: 3 },
    Metric { name: "CPU, s", of: |cost| cost.cpu, decimals: 3 },
    Metric { name: "peak, MiB", of: |cost| cost.peak / f64::from(1 << 20), decimals: 1 },
];

/// What ours is divided by.
const RIVALS: [usize; 2] = [Side::CPython as usize, Side::Malloc as usize];

/// The medians of one program.
#[derive(Debug)]
pub(super) struct Row {
    program: String,
    /// For each metric, on each side.
    medians: [[f64; 3]; METRICS.len()],
    share: Share,
}

impl Row {
    /// The row of a program with these `costs`, in the order of [`Side::ALL`].
    pub(super) fn new(program: String, costs: &[Vec<Cost>; 3], share: Share) -> Self {
        let of_metric = |metric: &Metric| {
            [0, 1, 2].map(|side: usize| median(costs[side].iter().map(metric.of)))
        };
        Self { program, medians: METRICS.each_ref().map(of_metric), share }
    }

    /// Ours to the one at `rival`.
    fn ratio(&self, metric: usize, rival: usize) -> f64 {
        self.medians[metric][Side::Obmalloc as usize] / self.medians[metric][rival]
    }
}

/// The programs of one Python, on all sides.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) rows: Vec<Row>,
    /// Programs that did not print the same in every run.
    pub(super) differing: BTreeSet<String>,
}

impl Comparison {
    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL);
        let mut header = vec!["program".to_owned(), "median".to_owned()];
        header.extend(Side::ALL.map(|side| side.name().to_owned()));
        header.extend(RIVALS.map(|rival| format!("ours / {}", Side::ALL[rival].name())));
        header.extend(["served, ≤ 512 B", "served, all"].map(str::to_owned));
        table.set_header(header);
        for row in &self.rows {
            let sides = [0, 1, 2].map(|side| {
                lines(|at| format!("{:.*}", METRICS[at].decimals, row.medians[at][side]))
            });
            let ratios = RIVALS.map(|rival| lines(|at| format!("{:.3}", row.ratio(at, rival))));
            let mut cells = vec![row.program.clone(), names()];
            cells.extend(sides.into_iter().chain(ratios));
            cells.extend([row.share.of_small(), row.share.of_all()].map(percent));
            table.add_row(cells);
        }
        if self.rows.len() > 1 {
            let mean = |at, rival| geometric_mean(self.rows.iter().map(|row| row.ratio(at, rival)));
            let mut cells = vec!["geometric mean".to_owned(), names()];
            cells.extend([const { String::new() }; 3]);
            cells.extend(RIVALS.map(|rival| lines(|at| format!("{:.3}", mean(at, rival)))));
            table.add_row(cells);
        }
        table.column_iter_mut().skip(2).for_each(|column| {
            column.set_cell_alignment(CellAlignment::Right);
        });
        table
    }
}

/// A line for each metric.
fn lines(text: impl Fn(usize) -> String) -> String {
    (0..METRICS.len()).map(text).collect::<Vec<_>>().join("\n")
}

fn names() -> String {
    lines(|at| METRICS[at].name.to_owned())
}

fn percent(part: f64) -> String {
    format!("{:.2} %", part * 100.0)
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.table())?;
        for program in &self.differing {
            write!(f, "\n{program} does not print the same in every run")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(wall: f64) -> Vec<Cost> {
        vec![Cost { wall, cpu: 1.0, peak: 1024.0 * 1024.0 }; 3]
    }

    #[test]
    fn a_row_has_the_ratios_and_the_last_one_their_means() {
        let row = |name: &str, ours| {
            Row::new(name.to_owned(), &[costs(2.0), costs(4.0), costs(ours)], Share::default())
        };
        let rows = vec![row("a", 1.0), row("b", 4.0)];
        let text = Comparison { rows, differing: BTreeSet::new() }.to_string();
        let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap();
        assert!(line(" a ").contains("0.500") && line(" a ").contains("0.250"), "{text}");
        assert!(line(" b ").contains("2.000") && line(" b ").contains("1.000"), "{text}");
        assert!(line("geometric mean").contains("1.000"), "{text}");
        assert!(line("geometric mean").contains("0.500"), "{text}");
    }
}
