//! The order in which the contenders of a measurement run.
//!
//! Contenders take turns, so that a slow phase of the machine affects all of them equally.

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

pub(crate) fn progress_bar(runs: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({elapsed}, {eta} left)");
    ProgressBar::new(runs as u64).with_style(style.expect("the template is well-formed"))
}

/// Returns the numbers below `count`, beginning with `turn` and wrapping around.
pub(crate) fn rotated(count: usize, turn: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |place| (place + turn) % count)
}

/// Runs each of `programs` on each of `sides` in every round.
///
/// The results are indexed by program, then by side, then by round.
///
/// # Errors
///
/// Fails as soon as a call of `run` fails.
pub(crate) fn in_rounds<T>(
    programs: &[impl AsRef<str>],
    sides: &[&str],
    rounds: usize,
    mut run: impl FnMut(usize, usize) -> Result<T>,
) -> Result<Vec<Vec<Vec<T>>>> {
    let bar = progress_bar(programs.len() * sides.len() * rounds);
    let nothing = || sides.iter().map(|_| Vec::with_capacity(rounds)).collect::<Vec<_>>();
    let mut seen: Vec<_> = programs.iter().map(|_| nothing()).collect();
    for round in 0..rounds {
        for (program, name) in programs.iter().enumerate() {
            for side in rotated(sides.len(), round) {
                bar.set_message(format!("{} on {}", name.as_ref(), sides[side]));
                seen[program][side].push(run(program, side)?);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_goes_first_as_often_as_the_others() {
        let mut order = Vec::new();
        let seen = in_rounds(&["p"], &["a", "b", "c"], 3, |_, side| {
            order.push(side);
            Ok(side)
        });
        assert_eq!(order, [0, 1, 2, 1, 2, 0, 2, 0, 1]);
        assert_eq!(seen.unwrap(), [[[0; 3], [1; 3], [2; 3]]]);
    }
}
