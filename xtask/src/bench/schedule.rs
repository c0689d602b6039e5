//! Decides which worker runs which workload, in an order that rotates from round to round.

use anyhow::Result;
use benches::{
    protocol::{Answer, Listed},
    workload::Weight,
};

use super::{entrant::Role, machine, worker::Worker};
use crate::report;

const MOST_HEAVY: u32 = 11;

pub(super) const MOST_HUGE: u32 = 3;

/// The bytes that must be available for a workload that needs gigabytes.
const HUGE: u64 = 8 << 30;

#[derive(Debug)]
pub(super) struct Task {
    pub(super) listed: Listed,
    pub(super) runs: Vec<Run>,
}

#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) worker: usize,
    pub(super) answers: Vec<Answer>,
    failed: bool,
}

impl Task {
    fn rounds(&self, rounds: u32) -> u32 {
        match self.listed.weight {
            Weight::Light => rounds,
            Weight::Heavy => rounds.min(MOST_HEAVY),
            Weight::Huge => rounds.min(MOST_HUGE),
        }
    }
}

/// Returns a task for each wanted workload, group by group.
pub(super) fn tasks(workers: &[Worker], is_wanted: impl Fn(&Listed) -> bool) -> Vec<Task> {
    let mut tasks: Vec<Task> = Vec::new();
    for (worker, introduced) in workers.iter().enumerate() {
        for listed in introduced.introduction.workloads.iter().filter(|one| is_wanted(one)) {
            let run = Run { worker, ..Run::default() };
            match tasks.iter_mut().find(|task| task.listed == *listed) {
                Some(task) => task.runs.push(run),
                None => tasks.push(Task { listed: listed.clone(), runs: vec![run] }),
            }
        }
    }
    tasks.sort_by_key(|task| task.listed.group);
    tasks
}

/// Runs every task in every round.
///
/// `left_out` receives the tasks that need too much memory, and other projects' allocators that
/// fail.
///
/// # Errors
///
/// Fails if one of our own allocators fails.
pub(super) fn run(
    workers: &[Worker],
    tasks: &mut Vec<Task>,
    (rounds, chunks): (u32, u32),
    left_out: &mut Vec<String>,
) -> Result<()> {
    tasks.retain(|task| {
        let fits = task.listed.weight < Weight::Huge || machine::available() >= HUGE;
        if !fits {
            left_out.push(format!("{}: less than 8 GiB are available", task.listed.name));
        }
        fits
    });
    let processes = |task: &Task| task.runs.len() * task.rounds(rounds) as usize;
    let bar = report::progress_bar(tasks.iter().map(processes).sum());
    for round in 0..rounds {
        for (number, task) in tasks.iter_mut().enumerate() {
            if round >= task.rounds(rounds) {
                continue;
            }
            bar.set_message(task.listed.name.clone());
            for place in report::rotated(task.runs.len(), round as usize + number) {
                let run = &mut task.runs[place];
                let worker = &workers[run.worker];
                bar.inc(1);
                if run.failed {
                    continue;
                }
                match worker.run(&task.listed.name, chunks) {
                    Ok(answer) => run.answers.push(answer),
                    Err(error) if worker.entrant.role == Role::Ours => return Err(error),
                    Err(error) => {
                        left_out.push(format!("{error:#}"));
                        run.failed = true;
                    }
                }
            }
        }
    }
    tasks.iter_mut().for_each(|task| task.runs.retain(|run| !run.failed));
    bar.finish_and_clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use benches::workload::Group;

    use super::*;

    #[test]
    fn a_workload_that_takes_long_runs_in_fewer_rounds() {
        let rounds = |weight| {
            let listed = Listed { name: "pair 64".to_owned(), group: Group::Micro, weight };
            Task { listed, runs: Vec::new() }.rounds(21)
        };
        assert_eq!([Weight::Light, Weight::Heavy, Weight::Huge].map(rounds), [21, 11, 3]);
    }
}
