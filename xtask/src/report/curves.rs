//! An SVG chart of curves over time.

use super::html::escaped;

/// The palette of Okabe and Ito for people with colour blindness, without yellow.
const COLOURS: [&str; 8] =
    ["#000000", "#d55e00", "#e69f00", "#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#787878"];

/// The pixel coordinates of the left, right, top and bottom edge of the plot.
const PLOT: (f64, f64, f64, f64) = (60.0, 760.0, 20.0, 380.0);

/// A curve with a name for the legend.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    /// True for a curve that is not measured on an allocator, which is dashed and grey.
    pub(crate) is_bound: bool,
}

/// Returns a chart of `lines`. The axes have the names `x` and `y`, and begin at 0.
pub(crate) fn curves(title: &str, (x, y): (&str, &str), lines: &[Line]) -> String {
    let (left, right, top, bottom) = PLOT;
    let all = || lines.iter().flat_map(|line| &line.points);
    let widest = all().map(|point| point.0).fold(f64::MIN_POSITIVE, f64::max);
    let highest = all().map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max) * 1.05;
    let place = |(at, value): &(f64, f64)| {
        let x = left + at / widest * (right - left);
        format!("{x:.1},{:.1}", bottom - value / highest * (bottom - top))
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1000 420\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>{}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        escaped(title)
    );
    for value in ticks(highest) {
        let y = bottom - value / highest * (bottom - top);
        svg += &format!("<path d=\"M{left} {y:.1}H{right}\" stroke=\"#dddddd\"/>\n");
        let (x, y) = (left - 6.0, y + 4.0);
        svg += &format!("<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{value}</text>\n");
    }
    for value in ticks(widest) {
        let (x, y) = (left + value / widest * (right - left), bottom + 16.0);
        svg += &format!("<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{value}</text>\n");
    }
    svg += &format!("<text x=\"{left}\" y=\"14\">{}</text>\n", escaped(y));
    let (end, base) = (right, bottom + 34.0);
    svg += &format!("<text x=\"{end}\" y=\"{base}\" text-anchor=\"end\">{}</text>\n", escaped(x));
    let mut colours = COLOURS.iter().cycle();
    for (number, line) in lines.iter().enumerate() {
        let style = if line.is_bound {
            "stroke=\"#999999\" stroke-dasharray=\"4 3\"".to_owned()
        } else {
            format!("stroke=\"{}\"", colours.next().unwrap_or(&"#000000"))
        };
        let points: Vec<_> = line.points.iter().map(place).collect();
        svg += &format!(
            "<polyline points=\"{}\" fill=\"none\" stroke-width=\"1.5\" {style}/>\n",
            points.join(" ")
        );
        let (x, y) = (right + 20.0, top + 20.0 * number as f64);
        svg += &format!("<path d=\"M{x} {y}h24\" stroke-width=\"2\" {style}/>\n");
        let (x, y, name) = (x + 30.0, y + 4.0, escaped(&line.name));
        svg += &format!("<text x=\"{x}\" y=\"{y}\">{name}</text>\n");
    }
    svg + "</svg>\n"
}

/// Returns about five round numbers up to `most`.
fn ticks(most: f64) -> Vec<f64> {
    let rough = most / 5.0;
    let unit = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * unit).into_iter();
    let step = step.min_by(|one, other| (one - rough).abs().total_cmp(&(other - rough).abs()));
    let step = step.unwrap_or(unit);
    let rounded = |value: f64| (value * 1e6).round() / 1e6;
    (0..=(most / step + 1e-9) as usize).map(|number| rounded(number as f64 * step)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_a_line_and_a_name_for_each_curve() {
        let line = |name: &str, is_bound| Line {
            name: name.to_owned(),
            points: vec![(0.0, 0.0), (10.0, 100.0)],
            is_bound,
        };
        let svg = curves("a < b", ("seconds", "MiB"), &[line("ours", false), line("live", true)]);
        assert_eq!(svg.matches("<polyline").count(), 2);
        // The highest point lies a little below the upper edge.
        assert!(svg.contains("points=\"60.0,380.0 760.0,37.1\""), "{svg}");
        for text in ["a &lt; b", ">ours<", ">live<", ">seconds<", ">MiB<", "stroke-dasharray"] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(ticks(105.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(0.3), [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]);
    }
}
