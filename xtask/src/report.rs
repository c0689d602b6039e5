//! Runs measurements and shows their results.

mod chart;
mod curves;
mod figures;
mod html;
mod parts;
mod rounds;
mod table;

pub(crate) use chart::chart;
pub(crate) use curves::{Line, curves};
pub(crate) use figures::{Figure, Figures, Measure};
pub(crate) use parts::{Part, page};
pub(crate) use rounds::{in_rounds, progress_bar, rotated};
pub(crate) use table::Table;
