//! Workloads that temporarily need much memory. They measure how much of it stays resident.
//!
//! A worker process runs one workload on its global allocator, and prints the measurements as a
//! [`Curve`]. The program `benches/python/memory.py` runs the same workloads in Python.

mod blocks;
mod curve;
mod recorder;
mod workloads;

pub use curve::{Curve, Sample};
use recorder::Recorder;

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

/// Runs the workload `name`. If `trim` is given, it is called whenever much memory was freed.
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
    fn a_name_without_a_workload_is_not_run() {
        assert!(run("1 in ten survives", None).is_none());
        assert!(run("rounds, at random", None).is_none());
    }
}
