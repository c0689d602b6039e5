//! Runs programs on a choice of memory layers, and reports their time and memory.

use std::{fs, time::Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use object_cache::{Cache, CacheGroup, CacheStats, cpython::DebugMallocStats};
use objects::{
    AllCaches, CachesOverMalloc, CachesOverPools, Layers, MallocAlone, Pools, Runtime,
    workloads::Workload,
};
use serde::Serialize;

/// Programs of examples/python on a small object model, with a switch for each layer.
///
/// Without switches, every object comes from malloc. The peak of memory is that of the whole
/// process, so run each choice of layers in a separate process to compare peaks.
#[derive(Parser)]
struct Args {
    /// Programs to run [default: all of them].
    workloads: Vec<Workload>,
    /// Allocates small objects from arenas and pools.
    #[arg(long)]
    pools: bool,
    /// Caches free objects by type, and makes small ints immortal.
    #[arg(long)]
    caches: bool,
    /// How often each program runs.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Prints a line of JSON for each program.
    #[arg(long)]
    json: bool,
    /// Prints the figures of the caches at the end, as CPython does.
    #[arg(long)]
    stats: bool,
    /// Prints the names of the programs without running them.
    #[arg(long)]
    list: bool,
}

/// The time and memory that a program needed on a choice of layers.
#[derive(Serialize)]
struct Outcome {
    workload: &'static str,
    layers: &'static str,
    /// The line that the program printed. It is the same in every round.
    printed: &'static str,
    /// The wall time of each round, in seconds.
    seconds: Vec<f64>,
    /// The peak of the process's memory in KiB, if the system reports it.
    peak_kib: Option<u64>,
    /// The number of objects that a cache provided, and the number that came from the layer below.
    hits: u64,
    misses: u64,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.list {
        Workload::ALL.iter().for_each(|workload| println!("{}", workload.name()));
        return Ok(());
    }
    if args.workloads.is_empty() {
        args.workloads = Workload::ALL.to_vec();
    }
    match (args.pools, args.caches) {
        (false, false) => run::<MallocAlone>(&args),
        (true, false) => run::<Pools>(&args),
        (false, true) => run::<CachesOverMalloc>(&args),
        (true, true) => run::<CachesOverPools>(&args),
    }
}

fn run<L: Layers>(args: &Args) -> Result<()> {
    let runtime = Runtime::<L>::default();
    let mut before = takes::<L>();
    for workload in &args.workloads {
        let mut seconds = Vec::new();
        for _ in 0..args.rounds {
            let start = Instant::now();
            let printed = workload.run(&runtime);
            seconds.push(start.elapsed().as_secs_f64());
            let (name, expected) = (workload.name(), workload.prints());
            ensure!(printed == expected, "{name} printed {printed:?}, expected {expected:?}");
        }
        let after = takes::<L>();
        let outcome = Outcome {
            workload: workload.name(),
            layers: L::NAME,
            printed: workload.prints(),
            seconds,
            peak_kib: peak_kib(),
            hits: after.hits - before.hits,
            misses: after.misses - before.misses,
        };
        before = after;
        print(&outcome, args.json)?;
    }
    if args.stats {
        eprint!("{}", DebugMallocStats(CacheGroup(&L::store().caches())));
    }
    Ok(())
}

/// Returns the hits and misses of all caches since the start, added up.
fn takes<L: Layers>() -> CacheStats {
    let mut sum = CacheStats::default();
    AllCaches::<L>::default().each_list(&mut |_, stats| {
        sum.hits += stats.hits;
        sum.misses += stats.misses;
    });
    sum
}

fn peak_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

fn print(outcome: &Outcome, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(outcome)?);
        return Ok(());
    }
    let mut sorted = outcome.seconds.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    let peak = outcome.peak_kib.map_or_else(String::new, |peak| format!("{peak} KiB"));
    let Outcome { workload, layers, hits, misses, .. } = *outcome;
    let rate = 100.0 * CacheStats { hits, misses, ..CacheStats::default() }.hit_rate();
    println!("{workload:16} {layers:24} {median:8.3} s {peak:>12}  {hits} hits ({rate:.1} %)");
    Ok(())
}
