//! Measures times. Each round measures every contender, so a disturbance of the machine affects all
//! of them.

use indicatif::{ProgressBar, ProgressStyle};

use crate::{contenders::ALL, pattern::Pattern};

/// The figures of all contenders. The outer index is a contender in the order of [`ALL`], and the
/// inner index is a pattern in the order of [`Pattern::ALL`].
pub(crate) type Figures = Vec<[f64; Pattern::ALL.len()]>;

/// Returns a progress bar with `steps` steps.
pub(crate) fn bar(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len}  {elapsed}  {msg}");
    ProgressBar::new(steps as u64).with_style(style.expect("the template is valid"))
}

/// Measures the time of taking an object and putting it back, in nanoseconds. Each figure is the
/// median of `rounds` measurements, each with about `pairs` objects.
pub(crate) fn all(rounds: usize, pairs: usize) -> Figures {
    let bar = bar(rounds * ALL.len());
    let mut seen = vec![[const { Vec::new() }; Pattern::ALL.len()]; ALL.len()];
    for round in 0..rounds {
        for turn in 0..ALL.len() {
            let at = (turn + round) % ALL.len();
            bar.set_message(ALL[at].name);
            for (times, pattern) in seen[at].iter_mut().zip(Pattern::ALL) {
                let time = (ALL[at].run)(pattern, pairs);
                times.push(time.as_secs_f64() * 1e9 / pattern.whole(pairs) as f64);
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    seen.into_iter().map(|patterns| patterns.map(median)).collect()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
