//! Who runs what, and when.
//!
//! ```text
//!   round 0   workload 0: A B C   workload 1: B C A   …
//!   round 1   workload 0: B C A   workload 1: C A B   …
//! ```
//!
//! Whatever slows the machine for a while slows all alike, and each goes first as often as the
//! others.

use anyhow::Result;
use benches::{
    protocol::{Answer, Listed},
    workload::{Group, Weight},
};
use indicatif::{ProgressBar, ProgressStyle};

use super::{entrant::Role, machine, worker::Worker};

/// The most rounds of what takes a second.
const MOST_HEAVY: u32 = 11;

/// The most rounds of what takes many seconds.
pub(super) const MOST_HUGE: u32 = 3;

/// Bytes that have to be there for what takes gigabytes.
const HUGE: u64 = 8 << 30;

/// A workload, and the workers that run it, by their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) group: Group,
    pub(super) workload: String,
    weight: Weight,
    workers: Vec<usize>,
}

impl Task {
    fn is_named(&self, only: Option<&str>) -> bool {
        is_named(self.group, &self.workload, only)
    }

    /// How many of `rounds` it takes part in.
    fn rounds(&self, rounds: u32) -> u32 {
        match self.weight {
            Weight::Light => rounds,
            Weight::Heavy => rounds.min(MOST_HEAVY),
            Weight::Huge => rounds.min(MOST_HUGE),
        }
    }

    /// The workers in the order of a turn.
    fn rotated(&self, turn: usize) -> impl Iterator<Item = usize> {
        let count = self.workers.len();
        (0..count).map(move |place| self.workers[(place + turn) % count])
    }
}

/// The workload `name` of `group` holds `only`.
pub(super) fn is_named(group: Group, name: &str, only: Option<&str>) -> bool {
    only.is_none_or(|part| format!("{}: {name}", group.name()).contains(part))
}

/// What one worker answered to one task, round by round.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) task: Task,
    pub(super) worker: usize,
    pub(super) answers: Vec<Answer>,
}

/// Every workload up to `most` that any worker has, those whose name holds `only`.
pub(super) fn tasks(workers: &[Worker], only: Option<&str>, most: Weight) -> Vec<Task> {
    let mut tasks: Vec<Task> = Vec::new();
    for (place, worker) in workers.iter().enumerate() {
        for Listed { name, group, weight } in &worker.introduction.workloads {
            match tasks.iter_mut().find(|task| task.workload == *name && task.group == *group) {
                Some(task) => task.workers.push(place),
                None => {
                    let (group, workload, weight) = (*group, name.clone(), *weight);
                    tasks.push(Task { group, workload, weight, workers: vec![place] });
                }
            }
        }
    }
    tasks.retain(|task| task.is_named(only) && task.weight <= most);
    tasks.sort_by_key(|task| task.group);
    tasks
}

/// Runs every task in every round. A peer that fails at a task is left out of it, and a task for
/// which the machine has too little memory altogether; which and why is added to `left_out`.
pub(super) fn run(
    workers: &[Worker],
    tasks: &[Task],
    rounds: u32,
    chunks: u32,
    left_out: &mut Vec<String>,
) -> Result<Vec<Measured>> {
    let fits = |task: &&Task| task.weight < Weight::Huge || machine::available() >= HUGE;
    let (tasks, too_large): (Vec<&Task>, Vec<&Task>) = tasks.iter().partition(fits);
    left_out.extend(too_large.iter().map(|task| format!("{}: too little memory", task.workload)));
    let processes = |task: &&Task| task.workers.len() as u64 * u64::from(task.rounds(rounds));
    let style = "{bar:30} {pos}/{len} {msg} ({elapsed}, {eta} left)";
    let bar = ProgressBar::new(tasks.iter().map(processes).sum())
        .with_style(ProgressStyle::with_template(style)?);
    let entry = |(task, worker): (&Task, usize)| Measured {
        task: task.clone(),
        worker,
        answers: Vec::with_capacity(rounds as usize),
    };
    let pairs =
        tasks.iter().copied().flat_map(|task| task.workers.iter().map(move |at| (task, *at)));
    let mut measured: Vec<_> = pairs.map(entry).collect();
    for round in 0..rounds {
        for (number, &task) in tasks.iter().enumerate() {
            if round >= task.rounds(rounds) {
                continue;
            }
            bar.set_message(task.workload.clone());
            for worker in task.rotated(round as usize + number) {
                bar.inc(1);
                let of_both = |one: &Measured| one.task == *task && one.worker == worker;
                let Some(place) = measured.iter().position(of_both) else { continue };
                match workers[worker].run(&task.workload, chunks) {
                    Ok(answer) => measured[place].answers.push(answer),
                    Err(error) if workers[worker].entrant.role == Role::Ours => return Err(error),
                    Err(error) => {
                        left_out.push(format!("{error:#}"));
                        measured.remove(place);
                    }
                }
            }
        }
    }
    bar.finish_and_clear();
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Task {
        let workload = "pair 64".to_owned();
        Task { group: Group::Micro, workload, weight: Weight::Light, workers: vec![0, 2, 5] }
    }

    #[test]
    fn each_goes_first_as_often_as_the_others() {
        let first: Vec<_> = (0..6).filter_map(|turn| task().rotated(turn).next()).collect();
        assert_eq!(first, [0, 2, 5, 0, 2, 5]);
        assert_eq!(task().rotated(1).collect::<Vec<_>>(), [2, 5, 0]);
    }

    #[test]
    fn what_takes_long_takes_part_in_fewer_rounds() {
        let rounds = |weight| Task { weight, ..task() }.rounds(21);
        assert_eq!([Weight::Light, Weight::Heavy, Weight::Huge].map(rounds), [21, 11, 3]);
    }

    #[test]
    fn a_task_is_named_by_its_group_and_by_its_workload() {
        assert!(task().is_named(None) && task().is_named(Some("micro")));
        assert!(task().is_named(Some("pair")) && !task().is_named(Some("batch")));
    }
}
