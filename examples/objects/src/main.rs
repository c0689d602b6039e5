//! Runs programs of the object model on a choice of layers, and says what it cost.

use std::{fs, time::Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use object_cache::{Cache, Registry};
use objects::{
    CachesOverMalloc, CachesOverPools, Layers, MallocAlone, Pools, Runtime,
    workloads::{ALL, Workload},
};
use serde::Serialize;

/// The programs of examples/python on a small object model, with a switch for each layer.
///
/// Without switches every object comes from malloc. To compare peaks of memory, run each choice in
/// a process of its own.
#[derive(Parser)]
struct Args {
    /// Programs to run; all of them by default.
    #[arg(value_parser = workload)]
    workloads: Vec<Workload>,
    /// Small objects come from arenas, pools and blocks.
    #[arg(long)]
    pools: bool,
    /// Dead objects are cached by type, and small ints are immortal.
    #[arg(long)]
    caches: bool,
    /// How often each program runs.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Prints a line of JSON for each program.
    #[arg(long)]
    json: bool,
    /// Prints what the caches hold at the end, as CPython prints it.
    #[arg(long)]
    stats: bool,
    /// Prints the names of the programs, and runs none.
    #[arg(long)]
    list: bool,
}

fn workload(name: &str) -> Result<Workload, String> {
    let known = || ALL.iter().map(|workload| workload.name).collect::<Vec<_>>().join(", ");
    let found = ALL.iter().find(|workload| workload.name == name).copied();
    found.ok_or_else(|| format!("no such program; there are {}", known()))
}

/// What a program cost on a choice of layers.
#[derive(Serialize)]
struct Outcome {
    workload: &'static str,
    layers: &'static str,
    /// What it printed, in every round.
    printed: String,
    /// Wall time of each round, in seconds.
    seconds: Vec<f64>,
    /// The most memory the process ever had, in KiB, where the system tells.
    peak_kib: Option<u64>,
    /// Objects that a cache served, and those that it had to ask for below.
    hits: u64,
    misses: u64,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.list {
        ALL.iter().for_each(|workload| println!("{}", workload.name));
        return Ok(());
    }
    if args.workloads.is_empty() {
        args.workloads = ALL.to_vec();
    }
    match (args.pools, args.caches) {
        (false, false) => run::<MallocAlone>(&args),
        (true, false) => run::<Pools>(&args),
        (false, true) => run::<CachesOverMalloc>(&args),
        (true, true) => run::<CachesOverPools>(&args),
    }
}

fn run<L: Layers>(args: &Args) -> Result<()> {
    let (registry, runtime) = (Registry::new(), Runtime::<L>::default());
    L::store().registered(&registry, || {
        let mut before = takes(&registry);
        for workload in &args.workloads {
            let (mut seconds, mut printed) = (Vec::new(), String::new());
            for _ in 0..args.rounds {
                let start = Instant::now();
                printed = workload.run(&runtime);
                seconds.push(start.elapsed().as_secs_f64());
                check(*workload, &printed)?;
            }
            let after = takes(&registry);
            let (hits, misses) = (after.0 - before.0, after.1 - before.1);
            before = after;
            let peak_kib = peak_kib();
            let (workload, layers) = (workload.name, L::NAME);
            let outcome = Outcome { workload, layers, printed, seconds, peak_kib, hits, misses };
            print(&outcome, args.json)?;
        }
        if args.stats {
            eprint!("{}", registry.report());
        }
        Ok(())
    })
}

/// Fails when a program printed something else than its Python original.
fn check(workload: Workload, printed: &str) -> Result<()> {
    let expected = workload.prints;
    ensure!(printed == expected, "{}: {printed:?} in place of {expected:?}", workload.name);
    Ok(())
}

/// Hits and misses of all caches so far.
fn takes(registry: &Registry) -> (u64, u64) {
    let (mut hits, mut misses) = (0, 0);
    registry.each_list(&mut |_, stats| {
        hits += stats.hits;
        misses += stats.misses;
    });
    (hits, misses)
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
    let Outcome { workload, layers, hits, misses, .. } = outcome;
    println!("{workload:20} {layers:24} {median:8.3} s {peak:>12}  {hits} hits, {misses} misses");
    Ok(())
}
