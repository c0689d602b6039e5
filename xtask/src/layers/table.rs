//! The table and the bars.

use anyhow::{Result, ensure};
use benches::figures::{geometric_mean, median};
use comfy_table::{CellAlignment, Table, presets};

use super::objects::{Choice, Outcome};

/// How many choices there are.
pub(super) const CHOICES: usize = Choice::ALL.len();

/// The widest bar, in characters.
const WIDEST: f64 = 40.0;

/// The medians of one program, in the order of [`Choice::ALL`].
#[derive(Debug)]
pub(super) struct Row {
    pub(super) program: String,
    pub(super) seconds: [f64; CHOICES],
    /// The most memory it had, in MiB.
    peak: [f64; CHOICES],
    /// Takes that found a dead object, and all takes, with caches.
    hits: u64,
    takes: u64,
}

impl Row {
    /// The row of `program`, from the outcomes of all its runs on each choice.
    ///
    /// Fails when not all of them printed the same.
    pub(super) fn new(program: &str, outcomes: &[Vec<Outcome>; CHOICES]) -> Result<Self> {
        let mut printed = outcomes.iter().flatten().map(|outcome| &outcome.printed);
        let first = printed.next();
        ensure!(
            printed.all(|line| Some(line) == first),
            "{program} does not print the same on all layers: {outcomes:?}"
        );
        let of = |figure: fn(&Outcome) -> f64| {
            [0, 1, 2].map(|at: usize| median(outcomes[at].iter().map(figure)))
        };
        let (hits, takes) = outcomes[Choice::Caches as usize]
            .first()
            .map_or((0, 0), |outcome| (outcome.hits, outcome.hits + outcome.misses));
        Ok(Self {
            program: program.to_owned(),
            seconds: of(|outcome| outcome.seconds[0]),
            peak: of(|outcome| outcome.peak_kib.unwrap_or_default() as f64 / 1024.0),
            hits,
            takes,
        })
    }

    /// The time with these layers, as a part of that on malloc alone.
    pub(super) fn part(&self, choice: Choice) -> f64 {
        self.seconds[choice as usize] / self.seconds[Choice::Malloc as usize]
    }
}

/// Time, memory and hits of each program.
pub(super) fn of(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let columns = |unit: &'static str| {
        Choice::ALL.iter().map(move |choice| format!("{}\n{unit}", choice.name()))
    };
    let header = ["program".to_owned()].into_iter();
    let header = header.chain(columns("ms")).chain(columns("peak, MiB"));
    table.set_header(header.chain(["takes that\nhit".to_owned(), "of all".to_owned()]));
    for row in rows {
        let times = Choice::ALL.map(|choice| match choice {
            Choice::Malloc => format!("{:.1}", row.seconds[0] * 1e3),
            _ => format!("{:.1} ({:.2})", row.seconds[choice as usize] * 1e3, row.part(choice)),
        });
        let peaks = row.peak.map(|peak| format!("{peak:.1}"));
        let rate = if row.takes == 0 { 0.0 } else { row.hits as f64 / row.takes as f64 };
        let cells = [row.program.clone()].into_iter().chain(times).chain(peaks);
        table.add_row(cells.chain([row.hits.to_string(), format!("{:.1} %", rate * 100.0)]));
    }
    let mean = |choice| geometric_mean(rows.iter().map(|row| row.part(choice)));
    let means = Choice::ALL.map(|choice| format!("({:.2})", mean(choice)));
    table.add_row(["geometric mean".to_owned()].into_iter().chain(means));
    table.column_iter_mut().skip(1).for_each(|column| {
        column.set_cell_alignment(CellAlignment::Right);
    });
    table
}

/// A bar for the time of each program with each choice, as a part of malloc's.
pub(super) fn bars(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        text += &format!("{}\n", row.program);
        for choice in Choice::ALL {
            let part = row.part(choice);
            let bar = "█".repeat((part * WIDEST).round() as usize);
            text += &format!("  {:12} {bar} {part:.2}\n", choice.name());
        }
    }
    text
}

#[cfg(test)]
impl Row {
    /// A program that takes half the time on each layer more.
    pub(super) fn example(program: &str) -> Self {
        let seconds = [0.4, 0.2, 0.1];
        Self { program: program.to_owned(), seconds, peak: [2.0; CHOICES], hits: 3, takes: 4 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(seconds: [f64; CHOICES], printed: [&str; CHOICES]) -> [Vec<Outcome>; CHOICES] {
        [0, 1, 2].map(|at| {
            let printed = printed[at].to_owned();
            let (seconds, peak_kib) = ([seconds[at]], Some(2048));
            vec![Outcome { printed, seconds, peak_kib, hits: 3, misses: 1 }; 3]
        })
    }

    #[test]
    fn a_row_has_the_times_as_parts_of_mallocs_and_the_hits_of_the_caches() {
        let row = Row::new("a", &outcomes([0.4, 0.2, 0.1], ["1"; 3])).unwrap();
        let text = of(&[row]).to_string();
        let line = text.lines().find(|line| line.contains(" a ")).unwrap();
        for figure in ["400.0", "200.0 (0.50)", "100.0 (0.25)", "2.0", "75.0 %"] {
            assert!(line.contains(figure), "{figure} in {text}");
        }
    }

    #[test]
    fn a_program_that_prints_something_else_on_one_choice_is_an_error() {
        let error = Row::new("a", &outcomes([1.0; 3], ["1", "1", "2"])).unwrap_err();
        assert!(error.to_string().contains("a does not print the same"), "{error}");
    }

    #[test]
    fn a_bar_is_as_long_as_its_part() {
        let text = bars(&[Row::example("a")]);
        let lengths = text.lines().map(|line| line.matches('█').count());
        assert!(lengths.eq([0, 40, 20, 10]), "{text}");
    }
}
