//! Medians and means.

/// The middle one, or the mean of the two in the middle.
///
/// # Panics
///
/// Panics when there is none.
pub(super) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<_> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len().is_multiple_of(2) {
        f64::midpoint(figures[middle - 1], figures[middle])
    } else {
        figures[middle]
    }
}

/// The mean of ratios: half as much and twice as much come to the same.
pub(super) fn geometric_mean(ratios: impl IntoIterator<Item = f64>) -> f64 {
    let (mut logarithms, mut count) = (0.0, 0);
    for ratio in ratios {
        logarithms += ratio.ln();
        count += 1;
    }
    (logarithms / f64::from(count)).exp()
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
    fn a_geometric_mean_takes_half_and_twice_as_even() {
        assert!((geometric_mean([0.5, 2.0]) - 1.0).abs() < 1e-9);
        assert!((geometric_mean([1.0, 8.0, 1.0]) - 2.0).abs() < 1e-9);
    }
}
