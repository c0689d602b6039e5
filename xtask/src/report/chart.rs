//! An SVG chart of ratios, with a row for each workload and a dot for each pair of contenders.

use super::{
    figures::{Figures, Pair},
    html::escaped,
};

/// The palette of Okabe and Ito for people with colour blindness, and two more colours.
const COLOURS: [&str; 9] = [
    "#000000", "#d55e00", "#e69f00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#787878",
    "#8c564b",
];

/// The horizontal positions where the plot begins and ends, in pixels.
const PLOT: (f64, f64) = (220.0, 960.0);

const LEGEND: f64 = 40.0;

const ROW: f64 = 24.0;

pub(crate) fn chart(figures: &Figures, pairs: &[Pair], names: &[&str]) -> String {
    let ratio = |row: usize, pair: &Pair| figures.ratio(row, *pair);
    let rows = 0..figures.rows.len();
    let all = || rows.clone().flat_map(|row| pairs.iter().filter_map(move |one| ratio(row, one)));
    let (least, most) = (all().fold(0.5, f64::min) * 0.8, all().fold(2.0, f64::max) * 1.25);
    let x = |ratio: f64| PLOT.0 + (ratio / least).ln() / (most / least).ln() * (PLOT.1 - PLOT.0);
    let y = |row: usize| LEGEND + ROW * (row as f64 + 0.5);
    let end = LEGEND + ROW * rows.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1000 {}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        end + ROW
    );
    let step = (PLOT.1 - PLOT.0) / names.len().max(1) as f64;
    for (place, (name, colour)) in names.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let (x, name) = (PLOT.0 + step * place as f64, escaped(name));
        svg += &format!("<circle cx=\"{x:.1}\" cy=\"16\" r=\"5\" fill=\"{colour}\"/>\n");
        svg += &format!("<text x=\"{:.1}\" y=\"20\" font-size=\"10\">{name}</text>\n", x + 8.0);
    }
    for power in least.log2().ceil() as i32..=most.log2().floor() as i32 {
        let (x, colour) = (x(2_f64.powi(power)), if power == 0 { "black" } else { "#dddddd" });
        svg += &format!("<path d=\"M{x:.1} {LEGEND}V{end}\" stroke=\"{colour}\"/>\n");
        let (y, label) = (end + 16.0, 2_f64.powi(power));
        svg += &format!("<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{label}</text>\n");
    }
    for row in rows.clone() {
        let (y, name) = (y(row), escaped(&figures.rows[row].0));
        let (end, base) = (PLOT.0 - 10.0, y + 4.0);
        svg += &format!("<text x=\"{end}\" y=\"{base}\" text-anchor=\"end\">{name}</text>\n");
        for (pair, colour) in pairs.iter().zip(COLOURS.iter().cycle()) {
            if let Some(ratio) = ratio(row, pair) {
                let x = x(ratio);
                svg += &format!(
                    "<circle cx=\"{x:.1}\" cy=\"{y}\" r=\"5\" fill=\"{colour}\" \
                     fill-opacity=\"0.8\"><title>{ratio:.2}</title></circle>\n"
                );
            }
        }
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_names_rows_and_contenders_and_has_a_dot_for_each_ratio() {
        let figures = Figures::example(&[("ours", 1.0), ("a", 2.0), ("b", 0.0)]);
        let svg = chart(&figures, &[(0, 1), (0, 2)], &["a", "b"]);
        for text in [">w<", ">a<", ">b<", "<title>0.50</title>"] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
        // There are two dots in the legend and one for the only ratio.
        assert_eq!(svg.matches("<circle").count(), 3);
    }
}
