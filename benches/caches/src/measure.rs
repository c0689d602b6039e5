//! Measures times in rounds, so that a disturbance of the machine affects every contender.

use indicatif::{ProgressBar, ProgressStyle};

use crate::{contenders::ALL, pattern::Pattern};

/// The figures by contender, in the order of [`ALL`], and by pattern.
pub(crate) type Figures = Vec<[f64; Pattern::ALL.len()]>;

pub(crate) fn bar(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len}  {elapsed}  {msg}");
    ProgressBar::new(steps as u64).with_style(style.expect("the template is valid"))
}

/// Returns the median time of a take and a put in nanoseconds, over `rounds` measurements.
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
