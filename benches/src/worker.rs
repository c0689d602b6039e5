//! The command line of a worker, a process that runs workloads on one allocator.
//!
//! ```text
//!   worker-NAME list                 what it can run
//!   worker-NAME run WORKLOAD CHUNKS  a chunk to warm up, then so many that are measured
//!   worker-NAME fragment SECONDS     replaces blocks for so long (only global allocators)
//!   worker-NAME memory WORKLOAD      a workload of the memory over time (only global allocators)
//!   worker-NAME memory WORKLOAD trim the same, with trims
//!   worker-NAME count LOOP           a loop, for counting its instructions
//! ```

use std::{process::ExitCode, time::Duration};

use serde::Serialize;

use crate::{
    c_programs,
    contender::{Contender, Realloc},
    contenders::Global,
    counted::{self, Loop},
    figures::median,
    fragmentation, memory, micro, patterns, programs,
    protocol::{Answer, Introduction, Listed},
    resident::{faults, resident},
    scale, sizes,
    workload::{Group, Taken, Weight, Workload},
};

/// Defines the `main` of a worker from its global allocator, a [`Realloc`] and a version.
///
/// A function that returns unused memory to the system may follow.
#[macro_export]
macro_rules! global_worker {
    ($allocator:ty = $value:expr, $realloc:ident, $version:expr $(, $trim:expr)?) => {
        #[global_allocator]
        static GLOBAL: $allocator = $value;

        fn main() -> std::process::ExitCode {
            let trim: [fn(); _] = [$($trim)?];
            let trim = trim.first().copied();
            $crate::worker::serve_global($crate::contender::Realloc::$realloc, $version, trim)
        }
    };
}

/// Executes the command line of a worker that tests the global allocator.
pub fn serve_global(realloc: Realloc, library: Option<String>, trim: Option<fn()>) -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [command, name, rest @ ..] = &arguments[..]
        && command == "memory"
    {
        return answer_memory(name, trim.filter(|_| !rest.is_empty()));
    }
    if let Some(duration) = duration_of_fragmentation() {
        print(&fragmentation::run(duration));
        return ExitCode::SUCCESS;
    }
    let mut loops = counted::loops(realloc);
    loops.extend(counted::loops_of_threads());
    let mut workloads = without_programs();
    workloads.extend(programs::workloads());
    answer(Global, library, &workloads, &loops)
}

/// Executes the command line of a worker that tests an allocator for a single thread.
pub fn serve_single<C: Contender>(
    contender: C,
    realloc: Realloc,
    library: Option<String>,
) -> ExitCode {
    let mut workloads = micro::workloads();
    workloads.extend(scale::of_blocks());
    answer(contender, library, &workloads, &counted::loops(realloc))
}

/// Runs a workload of the memory over time.
fn answer_memory(name: &str, trim: Option<fn()>) -> ExitCode {
    let Some(curve) = memory::run(name, trim) else {
        eprintln!("there is no workload {name}");
        return ExitCode::FAILURE;
    };
    print(&curve);
    ExitCode::SUCCESS
}

/// Returns the duration of the run, if the command line asks for such a run.
fn duration_of_fragmentation() -> Option<Duration> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next()?;
    let seconds = arguments.next()?.parse().ok()?;
    (command == "fragment" && arguments.next().is_none()).then(|| Duration::from_secs(seconds))
}

fn without_programs() -> Vec<Workload<Global>> {
    let mut workloads = micro::workloads();
    workloads.extend(sizes::workloads());
    workloads.extend(patterns::workloads());
    workloads.extend(patterns::of_mixed_sizes());
    workloads.extend(scale::of_blocks());
    workloads.extend(scale::of_threads());
    workloads
}

/// Returns every workload except those of Python.
pub fn every_workload() -> Vec<Listed> {
    let mut all: Vec<_> = without_programs().iter().map(listed).collect();
    let named = |name: &str, group, weight| Listed { name: name.to_owned(), group, weight };
    all.extend(programs::NAMES.map(|name| named(name, Group::Programs, Weight::Light)));
    all.extend(c_programs::NAMES.map(|name| named(name, Group::C, Weight::Heavy)));
    all
}

/// Returns mimalloc's version from a number with two decimal digits for each part.
pub fn mimalloc_version(number: i32) -> String {
    format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100)
}

fn answer<C>(
    mut contender: C,
    library: Option<String>,
    workloads: &[Workload<C>],
    loops: &[Loop<C>],
) -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["list"] => {
            print(&Introduction { library, workloads: workloads.iter().map(listed).collect() });
        }
        ["run", name, chunks] => {
            let workload = workloads.iter().find(|workload| workload.name == name);
            let (Some(workload), Ok(chunks @ 1..)) = (workload, chunks.parse()) else {
                eprintln!("cannot run {chunks} chunks of {name}");
                return ExitCode::FAILURE;
            };
            print(&run(&mut contender, workload, chunks));
        }
        ["count", name] => {
            let Some((_, run)) = loops.iter().find(|one| one.0 == name) else {
                eprintln!("there is no loop {name}");
                return ExitCode::FAILURE;
            };
            run(&mut contender);
        }
        _ => {
            eprintln!("usage: list | run WORKLOAD CHUNKS | fragment SECONDS | count LOOP");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn listed<C>(workload: &Workload<C>) -> Listed {
    Listed { name: workload.name.to_owned(), group: workload.group, weight: workload.weight }
}

fn run<C>(contender: &mut C, workload: &Workload<C>, chunks: u32) -> Answer {
    // The overhead of a block is measured in the first chunk, because the process is still fresh.
    let first = (workload.chunk)(contender);
    let taken: Vec<Taken> = if workload.weight > Weight::Light {
        vec![first]
    } else {
        (0..chunks).map(|_| (workload.chunk)(contender)).collect()
    };
    let (peak, end, faults) = (resident("VmHWM:"), resident("VmRSS:"), faults());
    let nanoseconds = median(taken.into_iter().map(Taken::nanoseconds));
    Answer { nanoseconds, peak, end, faults, overhead: first.overhead }
}

fn print(answer: &impl Serialize) {
    match serde_json::to_string(answer) {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_of_every_light_workload_takes_time() {
        for workload in without_programs().iter().filter(|one| one.weight == Weight::Light) {
            let taken = (workload.chunk)(&mut Global);
            assert!(taken.operations > 0 && !taken.time.is_zero(), "{}: {taken:?}", workload.name);
        }
    }

    #[test]
    fn a_version_of_mimalloc_has_three_parts() {
        assert_eq!(mimalloc_version(30_302), "3.3.2");
    }
}
