//! Workloads that need much memory for a while, and how much stays resident over time.
//!
//! A worker runs one of them on its global allocator and answers with a [`Curve`]. The program
//! `benches/python/memory.py` runs the same workloads in Python.

mod blocks;
mod recorder;
mod workloads;

use serde::{Deserialize, Serialize};

use recorder::Recorder;

/// What was in use and what was resident at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The time since the start in seconds, or the hour of a simulated week.
    pub at: f64,
    /// The bytes of all live blocks.
    pub live: u64,
    /// The bytes of the pages that hold a part of a live block, if they were counted.
    pub pages: Option<u64>,
    /// The resident memory of the process, in bytes.
    pub resident: u64,
}

/// The samples of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Curve {
    /// The samples in the order of time.
    pub samples: Vec<Sample>,
    /// The processor time of the whole process in seconds, without that of taking samples.
    pub seconds: f64,
}

impl Curve {
    /// Returns the mean of the resident memory in bytes. Every sample has the same weight.
    pub fn mean(&self) -> f64 {
        let sum: f64 = self.samples.iter().map(|sample| sample.resident as f64).sum();
        sum / self.samples.len().max(1) as f64
    }

    /// Returns the largest resident memory in bytes.
    pub fn peak(&self) -> f64 {
        self.samples.iter().map(|sample| sample.resident as f64).fold(0.0, f64::max)
    }
}

/// The workloads, in the order of tables.
pub const NAMES: [&str; 11] = [
    "rounds",
    "requests",
    "1 in 10 survives",
    "1 in 100 survives",
    "1 in 1,000 survives",
    "1 in 10,000 survives",
    "1 in 100 survives, at random",
    "1 in 1,000 survives, at random",
    "changing sizes",
    "idle threads",
    "a week of requests",
];

/// Runs the workload `name`. If `trim` exists, it is called whenever much memory was freed.
///
/// Returns `None` if there is no such workload.
pub fn run(name: &str, trim: Option<fn()>) -> Option<Curve> {
    let mut recorder = Recorder::new(trim);
    match name {
        "rounds" => workloads::rounds(&mut recorder),
        "requests" => workloads::requests(&mut recorder),
        "changing sizes" => workloads::changing_sizes(&mut recorder),
        "idle threads" => workloads::idle_threads(&mut recorder),
        "a week of requests" => workloads::week(&mut recorder),
        _ => {
            let (survivors, at_random) = match name.strip_suffix(", at random") {
                Some(survivors) => (survivors, true),
                None => (name, false),
            };
            let every = survivors.strip_prefix("1 in ")?.strip_suffix(" survives")?;
            let every = every.replace(',', "").parse().ok()?;
            workloads::survivors(&mut recorder, every, at_random);
        }
    }
    Some(recorder.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_gives_every_sample_the_same_weight() {
        let sample = |at, resident| Sample { at, live: 1, pages: None, resident };
        let samples = vec![sample(0.0, 10), sample(1.0, 40), sample(9.0, 10)];
        let curve = Curve { samples, seconds: 1.0 };
        assert!((curve.mean() - 20.0).abs() < 1e-9 && (curve.peak() - 40.0).abs() < 1e-9);
    }

    #[test]
    fn a_name_without_a_workload_is_not_run() {
        assert!(run("1 in ten survives", None).is_none());
        assert!(run("rounds, at random", None).is_none());
    }
}
