//! Tables for a terminal.

#![forbid(unsafe_code)]

use std::fmt;

use comfy_table::{CellAlignment, presets};

/// A table whose columns are aligned to the right if they contain only numbers.
#[derive(Clone, Debug)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table without rows.
    pub fn new<T: Into<String>>(header: impl IntoIterator<Item = T>) -> Self {
        Self { header: header.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn add<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Returns true if there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(&self.header);
        for row in &self.rows {
            table.add_row(row);
        }
        let is_number = |cell: &String| cell.starts_with(|first: char| first.is_ascii_digit());
        for (place, column) in table.column_iter_mut().enumerate() {
            if self.rows.iter().filter_map(|row| row.get(place)).all(is_number) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        write!(f, "{table}")
    }
}
