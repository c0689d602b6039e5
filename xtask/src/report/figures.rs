//! Figures of several contenders for several workloads, their ratios and means.

use benches::figures::{geometric_mean, median, spread};

use super::table::{Cell, Table};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// The decimals of figures below 1,000. Ratios have at least two decimals.
    pub(crate) decimals: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) value: f64,
    /// The interquartile range of several rounds, divided by their median.
    pub(crate) spread: Option<f64>,
}

impl Figure {
    pub(crate) fn plain(value: f64) -> Self {
        Self { value, spread: None }
    }

    /// Returns the median of `rounds`, with a spread if there are several.
    ///
    /// # Panics
    ///
    /// Panics if `rounds` is empty.
    fn of_rounds(rounds: &[f64]) -> Self {
        let spread = (rounds.len() > 1).then(|| spread(rounds));
        Self { value: median(rounds.iter().copied()), spread }
    }

    fn text(self, decimals: usize) -> String {
        let decimals = if self.value < 1000.0 { decimals } else { 0 };
        let spread = self.spread.map(|spread| format!(" ({:.0} %)", spread * 100.0));
        format!("{:.decimals$}{}", self.value, spread.unwrap_or_default())
    }
}

/// The figures of one measure, with a row for each workload and a column for each contender.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) measure: Measure,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<(String, Vec<Option<Figure>>)>,
    /// The geometric means to show: the name of each, and the rows that it covers.
    pub(crate) means: Vec<(String, Vec<usize>)>,
}

/// Two columns. Their ratio is the first divided by the second.
pub(crate) type Pair = (usize, usize);

impl Figures {
    /// Creates figures from the results of each row, by column and then by round.
    pub(crate) fn of_runs<T>(
        measure: Measure,
        columns: &[&str],
        rows: &[impl ToString],
        runs: &[Vec<Vec<T>>],
        of: fn(&T) -> f64,
    ) -> Self {
        let figure =
            |rounds: &Vec<T>| Some(Figure::of_rounds(&rounds.iter().map(of).collect::<Vec<_>>()));
        let figures = runs.iter().map(|columns| columns.iter().map(figure).collect());
        let rows = rows.iter().map(ToString::to_string).zip(figures).collect();
        Self::new(measure, columns.iter().map(ToString::to_string).collect(), rows)
    }

    pub(crate) fn new(
        measure: Measure,
        columns: Vec<String>,
        rows: Vec<(String, Vec<Option<Figure>>)>,
    ) -> Self {
        let means = vec![("geometric mean".to_owned(), (0..rows.len()).collect())];
        Self { measure, columns, rows, means }
    }

    pub(crate) fn value(&self, row: usize, column: usize) -> Option<f64> {
        Some(self.rows[row].1[column]?.value)
    }

    pub(crate) fn has(&self, column: usize) -> bool {
        self.rows.iter().any(|(_, figures)| figures[column].is_some())
    }

    /// Returns the ratio of `pair` in `row`, unless a figure is missing or the divisor is zero.
    pub(crate) fn ratio(&self, row: usize, (over, under): Pair) -> Option<f64> {
        let under = self.value(row, under).filter(|under| *under > 0.0)?;
        Some(self.value(row, over)? / under)
    }

    pub(crate) fn mean(&self, rows: &[usize], pair: Pair) -> Option<f64> {
        let ratios: Vec<_> = rows.iter().filter_map(|row| self.ratio(*row, pair)).collect();
        (!ratios.is_empty()).then(|| geometric_mean(ratios))
    }

    /// Returns a table of the columns `shown`, the ratios of `pairs`, and their means.
    ///
    /// Workloads without any figure are omitted. Returns `None` if no row is left.
    pub(crate) fn table(&self, first: &str, shown: &[usize], pairs: &[Pair]) -> Option<Table> {
        let mut header = vec![first.to_owned()];
        header.extend(shown.iter().map(|column| self.columns[*column].clone()));
        header.extend(pairs.iter().map(|(over, under)| match shown {
            [_] => format!("/ {}", self.columns[*under]),
            _ => format!("{} / {}", self.columns[*over], self.columns[*under]),
        }));
        let mut table = Table::new(header);
        let ratio = |ratio| Cell::ratio(ratio, self.measure.decimals.max(2));
        let has_figure = |row: &usize| shown.iter().any(|at| self.rows[*row].1[*at].is_some());
        let rows: Vec<_> = (0..self.rows.len()).filter(has_figure).collect();
        for row in &rows {
            let (name, figures) = &self.rows[*row];
            let text = |figure: Figure| figure.text(self.measure.decimals);
            let mut cells = vec![Cell::from(name)];
            let figures = shown.iter().map(|at| figures[*at].map_or("–".to_owned(), text));
            cells.extend(figures.map(Cell::from));
            cells.extend(pairs.iter().map(|pair| ratio(self.ratio(*row, *pair))));
            table.add(cells);
        }
        for (name, rows) in self.means.iter().filter(|_| !pairs.is_empty()) {
            let mut cells = vec![Cell::from(name)];
            cells.extend(shown.iter().map(|_| Cell::from("")));
            cells.extend(pairs.iter().map(|pair| ratio(self.mean(rows, *pair))));
            table.add(cells);
        }
        (!rows.is_empty()).then_some(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Figures {
        /// Returns figures with one row, whose name is `w`.
        pub(crate) fn example(figures: &[(&str, f64)]) -> Self {
            let measure = Measure { name: "time", unit: "ns", decimals: 2 };
            let columns = figures.iter().map(|(name, _)| (*name).to_owned()).collect();
            let row = figures.iter().map(|(_, value)| Some(Figure::plain(*value))).collect();
            Self::new(measure, columns, vec![("w".to_owned(), row)])
        }
    }

    #[test]
    fn a_table_has_figures_ratios_and_their_means() {
        let mut figures = Figures::example(&[("ours", 1.0), ("theirs", 2.0)]);
        let more = [8.0, 4.0].map(|value| Some(Figure::plain(value)));
        figures.rows.push(("v".to_owned(), more.to_vec()));
        figures.means[0].1.push(1);
        let text = figures.table("workload", &[0, 1], &[(0, 1)]).unwrap().to_string();
        let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap();
        assert!(line(" w ").contains("0.50") && line(" v ").contains("2.00"), "{text}");
        assert!(line("geometric mean").contains("1.00"), "{text}");
        assert!(line("workload").contains("ours / theirs"), "{text}");
    }

    #[test]
    fn a_zero_has_no_ratio_and_a_missing_column_no_table() {
        let mut figures = Figures::example(&[("ours", 6.0), ("none", 0.0)]);
        assert_eq!(figures.ratio(0, (0, 1)), None);
        assert_eq!(figures.mean(&[0], (0, 1)), None);
        figures.rows[0].1[0] = None;
        assert!(figures.table("workload", &[0], &[(0, 1)]).is_none() && !figures.has(0));
    }

    #[test]
    fn a_figure_of_rounds_is_their_median_with_a_spread() {
        let figure = Figure::of_rounds(&[900.0, 9.0, 10.0, 11.0, 1.0]);
        assert_eq!(figure.text(1), "10.0 (20 %)");
        assert_eq!(Figure::plain(1234.5).text(2), "1234");
    }
}
