//! A worker: the process that runs a workload on its contender, and answers.
//!
//! ```text
//!   worker-NAME list                 what it is and can run
//!   worker-NAME run WORKLOAD CHUNKS  a chunk to warm up, then so many that are measured
//!   worker-NAME count LOOP           a loop, for counting its instructions
//! ```

use std::{fs, process::ExitCode};

use serde::Serialize;

use crate::{
    contender::{Contender, Realloc},
    contenders::Global,
    counted::{self, Counted},
    figures::median,
    micro, patterns,
    protocol::{Answer, Introduction, Listed},
    scale,
    workload::{Taken, Weight, Workload},
};

/// Does what the command line says, on the process's global allocator.
pub fn serve_global(realloc: Realloc, library: Option<String>) -> ExitCode {
    let mut workloads = micro::workloads();
    workloads.extend(patterns::workloads());
    workloads.extend(scale::of_blocks());
    workloads.extend(scale::of_threads());
    #[cfg(feature = "programs")]
    workloads.extend(crate::programs::workloads());
    let mut loops = counted::loops(realloc);
    loops.extend(counted::loops_of_threads());
    answer(Global, library, &workloads, &loops)
}

/// Does what the command line says, on a contender that serves one thread.
pub fn serve_single<C: Contender>(
    contender: C,
    realloc: Realloc,
    library: Option<String>,
) -> ExitCode {
    let mut workloads = micro::workloads();
    workloads.extend(scale::of_blocks());
    answer(contender, library, &workloads, &counted::loops(realloc))
}

fn answer<C>(
    mut contender: C,
    library: Option<String>,
    workloads: &[Workload<C>],
    loops: &[Counted<C>],
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
                eprintln!("no workload {name}, or not {chunks} chunks");
                return ExitCode::FAILURE;
            };
            print(&run(&mut contender, workload, chunks));
        }
        ["count", name] => {
            let Some(counted) = loops.iter().find(|counted| counted.name == name) else {
                eprintln!("no loop {name}");
                return ExitCode::FAILURE;
            };
            counted.run(&mut contender);
        }
        _ => {
            eprintln!("usage: list | run WORKLOAD CHUNKS | count LOOP");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn listed<C>(workload: &Workload<C>) -> Listed {
    Listed { name: workload.name.to_owned(), group: workload.group, weight: workload.weight }
}

fn run<C>(contender: &mut C, workload: &Workload<C>, chunks: u32) -> Answer {
    // The first chunk finds the process fresh; what a block takes is seen there.
    let first = (workload.chunk)(contender);
    let taken: Vec<Taken> = if workload.weight > Weight::Light {
        vec![first]
    } else {
        (0..chunks).map(|_| (workload.chunk)(contender)).collect()
    };
    let nanoseconds = median(taken.into_iter().map(Taken::nanoseconds));
    Answer { nanoseconds, peak: resident("VmHWM:"), overhead: first.overhead }
}

/// Bytes that the kernel tells of this process under `name`; 0 where it tells none.
///
/// `getrusage` would count what was resident in the parent when it forked.
pub(crate) fn resident(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kibibytes.unwrap_or(0_u64) * 1024
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
    fn a_chunk_of_whatever_is_light_takes_time() {
        let mut workloads = micro::workloads();
        workloads.extend(patterns::workloads());
        workloads.extend(scale::of_blocks());
        workloads.extend(scale::of_threads());
        for workload in workloads.iter().filter(|one| one.weight == Weight::Light) {
            let taken = (workload.chunk)(&mut Global);
            assert!(taken.operations > 0 && !taken.time.is_zero(), "{}: {taken:?}", workload.name);
        }
    }
}
