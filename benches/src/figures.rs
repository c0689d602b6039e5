//! Medians, spreads and means.

/// Returns the median of `figures`.
///
/// # Panics
///
/// Panics if `figures` is empty.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    quantile(figures, 0.5)
}

/// Returns the interquartile range of `figures`, divided by their median.
///
/// # Panics
///
/// Panics if `figures` is empty.
pub fn spread(figures: &[f64]) -> f64 {
    let at = |part| quantile(figures.iter().copied(), part);
    (at(0.75) - at(0.25)) / at(0.5)
}

/// Returns the geometric mean of `ratios`.
pub fn geometric_mean(ratios: impl IntoIterator<Item = f64>) -> f64 {
    let (mut logarithms, mut count) = (0.0, 0);
    for ratio in ratios {
        logarithms += ratio.ln();
        count += 1;
    }
    (logarithms / f64::from(count)).exp()
}

/// Returns the quantile `part`, interpolated between two figures.
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
    fn one_slow_run_does_not_move_a_median() {
        assert!((median([3.0, 1.0, 900.0]) - 3.0).abs() < 1e-9);
        assert!((median([4.0, 1.0, 2.0, 900.0]) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_spread_is_the_interquartile_range() {
        assert!((spread(&[900.0, 9.0, 10.0, 11.0, 1.0]) - 0.2).abs() < 1e-9);
    }

    #[test]
    fn a_geometric_mean_of_a_half_and_a_double_is_one() {
        assert!((geometric_mean([0.5, 2.0]) - 1.0).abs() < 1e-9);
    }
}
