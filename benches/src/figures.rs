//! Medians, spreads and means.

/// The middle one, or the mean of the two in the middle.
///
/// # Panics
///
/// Panics when there is none.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    quantile(figures, 0.5)
}

/// How far the middle half of the figures reaches, as a part of the median.
///
/// # Panics
///
/// Panics when there is none.
pub fn spread(figures: &[f64]) -> f64 {
    let at = |part| quantile(figures.iter().copied(), part);
    (at(0.75) - at(0.25)) / at(0.5)
}

/// The mean of ratios: half as much and twice as much come to the same.
pub fn geometric_mean(ratios: impl IntoIterator<Item = f64>) -> f64 {
    let (mut logarithms, mut count) = (0.0, 0);
    for ratio in ratios {
        logarithms += ratio.ln();
        count += 1;
    }
    (logarithms / f64::from(count)).exp()
}

/// The figure below which `part` of them lie, between its two neighbours where it is none.
fn quantile(figures: impl IntoIterator<Item = f64>, part: f64) -> f64 {
    let mut figures: Vec<_> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    let place = part * (figures.len() - 1) as f64;
    let (low, high) = (figures[place.floor() as usize], figures[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_not_moved_by_one_slow_run() {
        assert!((median([3.0, 1.0, 900.0]) - 3.0).abs() < 1e-9);
        assert!((median([4.0, 1.0, 2.0, 900.0]) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_spread_is_that_of_the_middle_half() {
        assert!((spread(&[900.0, 9.0, 10.0, 11.0, 1.0]) - 0.2).abs() < 1e-9);
    }

    #[test]
    fn a_geometric_mean_takes_half_and_twice_as_even() {
        assert!((geometric_mean([0.5, 2.0]) - 1.0).abs() < 1e-9);
    }
}
