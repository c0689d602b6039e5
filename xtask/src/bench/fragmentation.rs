//! A run that shows whether memory use grows over time, on several allocators at the same time.

use std::{thread, time::Duration};

use anyhow::Result;
use benches::fragmentation::Interval;
use serde::Serialize;

use super::{
    entrant::{Entrant, JEMALLOC, MIMALLOC_V3, OBMALLOC, Role},
    worker::Worker,
};
use crate::report::{self, Figure, Figures, Measure, Part};

/// The name to which `--only` applies.
pub(super) const NAME: &str = "fragmentation: random mix";

/// The readings on one allocator.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Readings {
    pub(super) entrant: String,
    pub(super) intervals: Vec<Interval>,
}

/// Returns true if `entrant` takes part. Only few do, because they all run side by side.
pub(super) fn takes_part(entrant: &Entrant) -> bool {
    [OBMALLOC, MIMALLOC_V3, JEMALLOC].contains(&entrant.name)
}

/// Runs the workers that take part, all at the same time, because only memory is measured.
///
/// # Errors
///
/// Fails if our own allocator fails. Others are added to `left_out`.
pub(super) fn run(
    workers: &[Worker],
    seconds: u64,
    left_out: &mut Vec<String>,
) -> Result<Vec<Readings>> {
    let bar = report::progress_bar(1);
    bar.set_message(format!("fragmentation, {seconds} s"));
    bar.enable_steady_tick(Duration::from_secs(1));
    let workers: Vec<_> = workers.iter().filter(|one| takes_part(&one.entrant)).collect();
    let answers: Vec<_> = thread::scope(|scope| {
        let run = |worker: &Worker| worker.fragment(seconds);
        let threads: Vec<_> =
            workers.iter().map(|worker| scope.spawn(move || run(worker))).collect();
        threads.into_iter().map(|one| one.join().expect("a worker's thread panicked")).collect()
    });
    bar.finish_and_clear();
    let mut runs = Vec::new();
    for (worker, answer) in workers.iter().zip(answers) {
        let entrant = worker.entrant.name.to_owned();
        match answer {
            Ok(intervals) => runs.push(Readings { entrant, intervals }),
            Err(error) if worker.entrant.role == Role::Ours => return Err(error),
            Err(error) => left_out.push(format!("{error:#}")),
        }
    }
    Ok(runs)
}

impl Readings {
    /// Returns the largest mean of an interval.
    pub(super) fn highest(&self) -> f64 {
        self.intervals.iter().map(|one| one.mean).fold(0.0, f64::max)
    }

    /// Returns the mean of the last quarter divided by that of the second quarter.
    ///
    /// The first quarter is not used, because an allocator may still be filling its caches.
    pub(super) fn creep(&self) -> f64 {
        let quarter = self.intervals.len() / 4;
        let mean = |from: usize| {
            let part = &self.intervals[from..from + quarter];
            part.iter().map(|one| one.mean).sum::<f64>() / part.len() as f64
        };
        mean(self.intervals.len() - quarter) / mean(quarter)
    }
}

pub(super) fn parts(runs: &[Readings]) -> Vec<Part> {
    let Some(first) = runs.first() else { return Vec::new() };
    let measure = Measure { name: "resident memory / live bytes", unit: "mean", decimals: 3 };
    let columns: Vec<_> = runs.iter().map(|run| run.entrant.clone()).collect();
    let row = |place: usize| {
        let figure = |run: &Readings| Some(Figure::plain(run.intervals.get(place)?.mean));
        let name = format!("up to {} s", first.intervals[place].end);
        (name, runs.iter().map(figure).collect())
    };
    let figures = Figures::new(measure, columns, (0..first.intervals.len()).map(row).collect());
    let all: Vec<_> = (0..runs.len()).collect();
    let mut parts = vec![Part::Heading("fragmentation".to_owned())];
    let table = figures.table("interval", &all, &[]);
    let caption = format!("{NAME}, 1 byte to 4 MiB, 256 MiB live: {}", measure.name);
    parts.extend(table.map(|table| Part::Table(caption, table)));
    let line = |run: &Readings| {
        let most = run.intervals.iter().map(|one| one.most).fold(0.0, f64::max);
        let (name, creep) = (&run.entrant, (run.creep() - 1.0) * 100.0);
        format!(
            "{name}: the largest reading is {most:.3}; the last quarter differs from the second by {creep:+.1} %"
        )
    };
    parts.push(Part::List(runs.iter().map(line).collect()));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(means: [f64; 8]) -> Readings {
        let interval = |(place, mean)| Interval { end: f64::from(place), mean, most: mean + 0.5 };
        let intervals = (1..).zip(means).map(interval).collect();
        Readings { entrant: "ours".to_owned(), intervals }
    }

    #[test]
    fn creep_compares_the_last_quarter_with_the_second() {
        let run = readings([9.0, 9.0, 1.0, 3.0, 9.0, 9.0, 2.0, 4.0]);
        assert!((run.creep() - 1.5).abs() < 1e-9, "{}", run.creep());
        assert!((run.highest() - 9.0).abs() < 1e-9, "{}", run.highest());
    }

    #[test]
    fn a_table_has_a_row_for_each_interval() {
        let text: String = parts(&[readings([1.0; 8])]).iter().map(Part::to_string).collect();
        assert_eq!(text.matches("up to").count(), 8, "{text}");
        assert!(text.contains("ours: the largest reading is 1.500; the last quarter"), "{text}");
    }
}
