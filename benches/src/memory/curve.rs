//! The memory of a process over time.

use serde::{Deserialize, Serialize};

/// The memory that was in use and the memory that was resident at one moment.
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
    /// The processor time of the whole process in seconds, except for the time to take samples.
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
}
