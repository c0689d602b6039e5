//! All that was measured, as it is written to a file.

use benches::{
    figures::{median, spread},
    protocol::Answer,
    workload::Group,
};
use serde::{Deserialize, Serialize};

use super::{
    entrant::Role,
    machine::Machine,
    schedule::{self, Measured},
    worker::Worker,
};

/// A run of the bench.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    /// The command line.
    pub(crate) command: Vec<String>,
    pub(crate) rounds: u32,
    /// Chunks of a process; its figure is their median.
    pub(crate) chunks: u32,
    pub(crate) entrants: Vec<Named>,
    /// Who or what could not be measured, and why.
    pub(crate) left_out: Vec<String>,
    pub(crate) figures: Vec<Figure>,
}

/// Somebody who took part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) version: String,
}

/// What one entrant took for one workload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) group: Group,
    pub(crate) workload: String,
    pub(crate) entrant: String,
    /// Nanoseconds of an operation: the median of the rounds.
    pub(crate) nanoseconds: f64,
    /// How far the middle half of the rounds reaches, as a part of the median.
    pub(crate) spread: f64,
    /// Bytes that were resident when most were: the median of the rounds. None of an entrant in a
    /// process whose memory is not its own.
    pub(crate) peak: Option<f64>,
    /// Bytes that each live block took beyond its size, where that was looked at.
    pub(crate) overhead: Option<f64>,
    /// Nanoseconds of an operation, in each round.
    pub(crate) rounds: Vec<f64>,
}

impl Results {
    /// What the `workers` answered.
    pub(super) fn new(
        workers: &[Worker],
        measured: Vec<Measured>,
        rounds: u32,
        chunks: u32,
        left_out: Vec<String>,
    ) -> Self {
        let named = |worker: &Worker| Named {
            name: worker.entrant.name.to_owned(),
            role: worker.entrant.role,
            version: worker.version.clone(),
        };
        // An entrant may have several workers: one for each Python.
        let mut entrants: Vec<_> = workers.iter().map(named).collect();
        entrants.dedup_by(|one, other| one.name == other.name);
        let figure = |one: Measured| Figure::new(one, workers);
        Self {
            machine: Machine::new(),
            command: std::env::args().skip(1).collect(),
            rounds,
            chunks,
            entrants,
            left_out,
            figures: measured.into_iter().map(figure).collect(),
        }
    }

    /// The names of those with this role.
    pub(crate) fn with_role(&self, role: Role) -> impl Iterator<Item = &str> {
        self.entrants.iter().filter(move |one| one.role == role).map(|one| one.name.as_str())
    }

    /// How the figures came to be.
    pub(crate) fn method(&self) -> String {
        format!(
            "medians of {} rounds, in each a process of its own with {} chunk(s), one where a chunk \
             takes a second, and then at most {} rounds if it takes many; in brackets how far the \
             middle half of the rounds reaches; all compiled by cargo's release profile with fat \
             LTO",
            self.rounds,
            self.chunks,
            self.rounds.min(schedule::MOST_HUGE)
        )
    }

    /// Those that have run anything of a group.
    pub(crate) fn names_in(&self, group: Group) -> impl Iterator<Item = &str> {
        let ran = move |name: &str| {
            self.figures.iter().any(|figure| figure.group == group && figure.entrant == name)
        };
        self.entrants.iter().map(|one| one.name.as_str()).filter(move |name| ran(name))
    }

    /// Those of them that are not ours.
    pub(crate) fn others_in(&self, group: Group) -> Vec<&str> {
        let is_ours = |name: &&str| self.with_role(Role::Ours).any(|ours| ours == *name);
        self.names_in(group).filter(|name| !is_ours(name)).collect()
    }

    /// The groups that were measured, in order.
    pub(crate) fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<_> = self.figures.iter().map(|figure| figure.group).collect();
        groups.dedup();
        groups
    }

    /// The workloads of a group, in order.
    pub(crate) fn workloads(&self, group: Group) -> Vec<&str> {
        let of_group = self.figures.iter().filter(|figure| figure.group == group);
        let mut names: Vec<_> = of_group.map(|figure| figure.workload.as_str()).collect();
        names.dedup();
        names
    }

    /// What `entrant` took, if it took part.
    pub(crate) fn figure(&self, group: Group, workload: &str, entrant: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| {
            figure.group == group && figure.workload == workload && figure.entrant == entrant
        })
    }
}

impl Figure {
    fn new(Measured { task, worker, answers }: Measured, workers: &[Worker]) -> Self {
        let entrant = workers[worker].entrant;
        let rounds: Vec<_> = answers.iter().map(|answer| answer.nanoseconds).collect();
        Self {
            group: task.group,
            workload: task.workload,
            entrant: entrant.name.to_owned(),
            nanoseconds: median(rounds.iter().copied()),
            spread: spread(&rounds),
            peak: entrant.global.then(|| median(answers.iter().map(|answer| answer.peak as f64))),
            overhead: overhead(&answers),
            rounds,
        }
    }
}

/// The median, where every answer has one.
fn overhead(answers: &[Answer]) -> Option<f64> {
    let overheads: Option<Vec<_>> = answers.iter().map(|answer| answer.overhead).collect();
    overheads.map(median)
}

#[cfg(test)]
impl Results {
    /// One workload's times; the first is ours.
    pub(super) fn of_times(group: Group, workload: &str, times: &[(&str, f64)]) -> Self {
        let figure = |(entrant, nanoseconds): &(&str, f64)| Figure {
            group,
            workload: workload.to_owned(),
            entrant: (*entrant).to_owned(),
            nanoseconds: *nanoseconds,
            spread: 0.0,
            peak: None,
            overhead: None,
            rounds: vec![*nanoseconds],
        };
        let named = |(place, (name, _)): (usize, &(&str, f64))| Named {
            name: (*name).to_owned(),
            role: if place == 0 { Role::Ours } else { Role::Peer },
            version: String::new(),
        };
        Self {
            machine: Machine::new(),
            command: Vec::new(),
            rounds: 1,
            chunks: 1,
            left_out: Vec::new(),
            entrants: times.iter().enumerate().map(named).collect(),
            figures: times.iter().map(figure).collect(),
        }
    }
}
