//! Counts instructions by running this program under callgrind.
//!
//! Subtracting a shorter run from a longer one removes the cost of starting the program.

use std::{
    env,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::{
    contenders::ALL,
    measure::{Figures, bar},
    pattern::Pattern,
};

/// The number of objects in the shorter run, a multiple of the length of every burst.
const PAIRS: usize = 64_000;

pub(crate) fn all() -> Result<Figures> {
    let bar = bar(ALL.len() * Pattern::ALL.len());
    let mut figures = Figures::new();
    for entry in ALL {
        bar.set_message(format!("{}, counted", entry.name));
        let mut counts = [0.0; Pattern::ALL.len()];
        for (count, pattern) in counts.iter_mut().zip(Pattern::ALL) {
            let more = instructions(entry.name, pattern, 2 * PAIRS)?;
            let less = instructions(entry.name, pattern, PAIRS)?;
            *count = (more - less) / PAIRS as f64;
            bar.inc(1);
        }
        figures.push(counts);
    }
    bar.finish_and_clear();
    Ok(figures)
}

fn instructions(contender: &str, pattern: Pattern, pairs: usize) -> Result<f64> {
    let pattern = pattern.to_possible_value().context("every pattern has a name")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args(["one", contender, pattern.get_name(), &pairs.to_string()])
        .stdin(Stdio::null())
        .output()
        .context("cannot start valgrind to count instructions")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind failed: {stderr}");
    let count = stderr.lines().find_map(|line| line.split("Collected :").nth(1));
    let count = count.and_then(|count| count.trim().parse().ok());
    count.with_context(|| format!("callgrind printed no instruction count: {stderr}"))
}
