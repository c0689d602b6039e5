//! The chart.

use anyhow::Result;
use charts_rs::HorizontalBarChart;

use super::{objects::Choice, table::Row};

/// Pixels of a program's three bars and the room around them.
const EACH: f32 = 60.0;

/// Pixels of the title, the legend and the axis.
const AROUND: f32 = 120.0;

/// The time of each program with each choice, as a part of malloc's, as an SVG image.
pub(super) fn svg(rows: &[Row]) -> Result<String> {
    // The axis counts from below.
    let rows = || rows.iter().rev();
    let series = Choice::ALL.map(|choice| {
        let parts: Vec<_> = rows().map(|row| row.part(choice) as f32).collect();
        (choice.name(), parts).into()
    });
    let programs = rows().map(|row| row.program.clone()).collect();
    let mut chart = HorizontalBarChart::new(series.into(), programs);
    chart.title.text = "Time of programs, to malloc alone".to_owned();
    chart.width = 900.0;
    chart.height = AROUND + EACH * rows().len() as f32;
    Ok(chart.svg()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_names_every_program_and_every_choice() {
        let rows = ["a_program", "another"].map(Row::example);
        let svg = svg(&rows).unwrap();
        assert!(svg.starts_with("<svg"), "{svg}");
        for name in ["a_program", "another", "malloc alone", "+ pools", "+ caches"] {
            assert!(svg.contains(name), "{name} in {svg}");
        }
    }
}
