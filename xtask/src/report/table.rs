//! A table that can be printed as text, as Markdown or as HTML.

use std::fmt;

use comfy_table::{CellAlignment, TableStyle, presets};

use super::html::escaped;

/// A table whose columns contain numbers, except for the first column.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Debug)]
pub(crate) struct Cell {
    text: String,
    /// True if an HTML page highlights the ratio as a loss.
    is_loss: bool,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), is_loss: false }
    }
}

impl Cell {
    /// Returns a cell with the ratio of our allocator to another. A ratio above 1 is a loss.
    pub(super) fn ratio(ratio: Option<f64>, decimals: usize) -> Self {
        let text = ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.decimals$}"));
        Self { text, is_loss: ratio.is_some_and(|ratio| ratio > 1.0) }
    }

    fn is_number(&self) -> bool {
        let begins_like_one = |first: char| first.is_ascii_digit() || first == '–';
        self.text.is_empty() || self.text.starts_with(begins_like_one)
    }
}

impl Table {
    pub(crate) fn new<T: Into<String>>(header: impl IntoIterator<Item = T>) -> Self {
        Self { header: header.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    pub(crate) fn add<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    pub(crate) fn markdown(&self) -> String {
        self.styled(presets::ASCII_MARKDOWN).to_string()
    }

    pub(super) fn html(&self) -> String {
        let row = |cells: String| format!("<tr>{cells}</tr>\n");
        let header = self.header.iter().map(|name| format!("<th>{}</th>", escaped(name)));
        let mut html = format!("<table>\n{}", row(header.collect()));
        for cells in &self.rows {
            let cell = |cell: &Cell| {
                let class = if cell.is_loss { " class=\"loss\"" } else { "" };
                format!("<td{class}>{}</td>", escaped(&cell.text))
            };
            html += &row(cells.iter().map(cell).collect());
        }
        html + "</table>\n"
    }

    fn styled(&self, style: TableStyle) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table.load_style(style).set_header(&self.header);
        for cells in &self.rows {
            table.add_row(cells.iter().map(|cell| &cell.text));
        }
        for (place, column) in table.column_iter_mut().enumerate().skip(1) {
            if self.rows.iter().filter_map(|cells| cells.get(place)).all(Cell::is_number) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.styled(presets::UTF8_FULL_CONDENSED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_marks_ratios_above_one_and_escapes_text() {
        let mut table = Table::new(["a < b", "ratio"]);
        table.add([Cell::from("x"), Cell::ratio(Some(1.25), 2)]);
        table.add([Cell::from("y"), Cell::ratio(None, 2)]);
        let html = table.html();
        for part in ["<th>a &lt; b</th>", "<td class=\"loss\">1.25</td>", "<td>–</td>"] {
            assert!(html.contains(part), "{part} in {html}");
        }
    }

    #[test]
    fn columns_of_numbers_are_aligned_to_the_right() {
        let mut table = Table::new(["name", "a long header"]);
        table.add(["x", "1.0"]);
        assert!(table.markdown().contains("| x    |           1.0 |"), "{}", table.markdown());
    }
}
