//! A chart of ratios: a row for each workload, a dot for each of the others.
//!
//! ```text
//!   pair 64     ●  ●●   ┊
//!   batch same      ●   ┊  ●        left of the line, ours takes less
//!              0.25 0.5 1  2
//! ```

use anyhow::{Result, anyhow};
use plotters::{
    coord::ranged1d::SegmentValue,
    prelude::{
        ChartBuilder, Circle, Color, IntoDrawingArea, IntoLogRange, IntoSegmentedCoord,
        PathElement, RGBColor, SVGBackend, SeriesLabelPosition, WHITE,
    },
    style::BLACK,
};

/// Colours that are told apart by most eyes (Okabe and Ito), and two more.
const COLOURS: [RGBColor; 9] = [
    RGBColor(0, 0, 0),
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
    RGBColor(140, 86, 75),
];

/// The dots of one of the others.
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    /// For each workload the ratio, where there is one.
    pub(super) ratios: Vec<Option<f64>>,
}

/// The chart, as SVG.
pub(super) fn ratios(workloads: &[&str], series: &[Series<'_>]) -> Result<String> {
    let all = || series.iter().flat_map(|one| one.ratios.iter().flatten().copied());
    let least = all().fold(0.5, f64::min) * 0.8;
    let most = all().fold(2.0, f64::max) * 1.25;
    let rows = i32::try_from(workloads.len())?;
    let mut svg = String::new();
    draw(&mut svg, workloads, series, least..most, rows).map_err(|error| anyhow!("{error}"))?;
    Ok(svg)
}

fn draw(
    svg: &mut String,
    workloads: &[&str],
    series: &[Series<'_>],
    range: std::ops::Range<f64>,
    rows: i32,
) -> Result<(), Box<dyn std::error::Error>> {
    let height = 90 + 24 * rows.unsigned_abs();
    let area = SVGBackend::with_string(svg, (1000, height.max(260))).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .margin_right(150)
        .x_label_area_size(40)
        .y_label_area_size(190)
        .build_cartesian_2d(range.log_scale(), (0..rows).into_segmented())?;
    // The first workload is at the top, below a row that is left to the names of the others.
    let row = |place: usize| SegmentValue::CenterOf(rows - 1 - place as i32);
    let label = |value: &SegmentValue<i32>| match value {
        SegmentValue::CenterOf(from_below) => {
            let place = usize::try_from(rows - 1 - from_below).ok();
            place
                .and_then(|place| workloads.get(place))
                .map_or(String::new(), |name| (*name).to_owned())
        }
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(WHITE)
        .x_labels(12)
        .y_labels(workloads.len())
        .y_label_formatter(&label)
        .x_label_formatter(&|ratio| format!("{ratio:.2}"))
        .x_desc("ours / theirs")
        .draw()?;
    let line = [(1.0, SegmentValue::Exact(0)), (1.0, SegmentValue::Last)];
    chart.draw_series([PathElement::new(line, BLACK)])?;
    for (one, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let dot = |(place, ratio): (usize, &Option<f64>)| {
            ratio.map(|ratio| Circle::new((ratio, row(place)), 5, colour.mix(0.8).filled()))
        };
        chart
            .draw_series(one.ratios.iter().enumerate().filter_map(dot))?
            .label(one.name)
            .legend(move |at| Circle::new(at, 5, colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::Coordinate(660, 5))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_names_its_rows_and_its_dots() {
        let series = [
            Series { name: "jemalloc", ratios: vec![Some(0.4), Some(3.0)] },
            Series { name: "system", ratios: vec![None, Some(1.0)] },
        ];
        let svg = ratios(&["pair 64", "batch same"], &series).unwrap();
        for text in ["pair 64", "batch same", "jemalloc", "system"] {
            assert!(svg.contains(text), "{text}");
        }
        // A dot for each ratio, and one for each name.
        assert_eq!(svg.matches("<circle").count(), 5);
    }
}
