//! Compares the cost of a cache hit with our heap, mimalloc and the object pools of other crates.
//!
//! ```sh
//! cargo run --release -p caches -- --count
//! ```

mod contender;
mod contenders;
mod count;
mod measure;
mod pattern;
mod report;

use std::process::exit;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::pattern::Pattern;

/// Measures the cost of taking a free object from a cache or a pool and putting it back.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    only: Option<Only>,
    /// How often each contender is measured.
    #[arg(long, default_value_t = 101)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// The number of objects that one measurement takes and puts back.
    #[arg(long, default_value_t = 256_000)]
    pairs: usize,
    /// Also counts instructions with callgrind.
    #[arg(long)]
    count: bool,
    /// Prints a line of JSON for each contender and pattern instead of tables.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Only {
    /// Runs one contender, for a profiler.
    One { contender: String, pattern: Pattern, pairs: usize },
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(Only::One { contender, pattern, pairs }) = args.only {
        let Some(entry) = contenders::ALL.iter().find(|entry| entry.name == contender) else {
            let known: Vec<_> = contenders::ALL.iter().map(|entry| entry.name).collect();
            eprintln!("unknown contender {contender:?}, expected one of {known:?}");
            exit(2)
        };
        (entry.run)(pattern, pairs);
        return Ok(());
    }
    let times = measure::all(args.rounds.into(), args.pairs);
    let counts = if args.count { Some(count::all()?) } else { None };
    if args.json {
        report::json(&times, counts.as_ref())
    } else {
        report::tables(&times, counts.as_ref())
    }
}
