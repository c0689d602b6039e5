//! All measured figures, in the form in which `--json` writes them.

use benches::{figures, protocol::Answer, workload::Group};
use serde::Serialize;

use super::{
    entrant::Role,
    fragmentation::Readings,
    machine::Machine,
    schedule::{self, Task},
    worker::Worker,
};
use crate::report::{Figure, Figures, Measure};

#[derive(Debug, Serialize)]
pub(super) struct Results {
    pub(super) machine: Machine,
    pub(super) command: Vec<String>,
    pub(super) rounds: u32,
    pub(super) chunks: u32,
    pub(super) entrants: Vec<Named>,
    pub(super) left_out: Vec<String>,
    pub(super) figures: Vec<Record>,
    pub(super) fragmentation: Vec<Readings>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) version: String,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Record {
    pub(super) group: Group,
    pub(super) workload: String,
    pub(super) entrant: String,
    /// The time of an operation in nanoseconds, as the median of the rounds.
    nanoseconds: f64,
    /// The interquartile range of the rounds, divided by their median.
    spread: f64,
    /// The peak of resident memory in bytes, if the allocator served the whole process.
    peak: Option<f64>,
    /// The resident memory in bytes after the workload freed its blocks, measured like `peak`.
    end: Option<f64>,
    /// The page faults beyond those that the peak needs, for programs only.
    faults: Option<f64>,
    pub(super) overhead: Option<f64>,
    rounds: Vec<f64>,
}

/// A quantity that is compared, and how to read it from a record.
pub(super) type Measured = (Measure, fn(&Record) -> Option<Figure>);

pub(super) const TIME: Measured =
    (Measure { name: "time of an operation", unit: "ns", decimals: 2 }, |one| {
        Some(Figure { value: one.nanoseconds, spread: Some(one.spread) })
    });

pub(super) const PEAK: Measured =
    (Measure { name: "peak of resident memory", unit: "MiB", decimals: 2 }, |one| {
        Some(Figure::plain(one.peak? / f64::from(1 << 20)))
    });

pub(super) const END: Measured = (
    Measure { name: "resident memory after everything was freed", unit: "MiB", decimals: 2 },
    |one| Some(Figure::plain(one.end? / f64::from(1 << 20))),
);

pub(super) const OVERHEAD: Measured = (
    Measure { name: "memory of a live block beyond its size", unit: "bytes", decimals: 2 },
    |one| one.overhead.map(Figure::plain),
);

pub(super) const FAULTS: Measured =
    (Measure { name: "page faults beyond the peak", unit: "faults", decimals: 0 }, |one| {
        one.faults.map(Figure::plain)
    });

/// Everything that is compared, with the time first.
pub(super) const ALL: [Measured; 5] = [TIME, PEAK, END, OVERHEAD, FAULTS];

/// The bytes of a page, for which a fault makes memory resident.
const PAGE: u64 = 4096;

impl Results {
    pub(super) fn new(
        machine: Machine,
        workers: &[Worker],
        tasks: &[Task],
        (rounds, chunks): (u32, u32),
        fragmentation: Vec<Readings>,
        left_out: Vec<String>,
    ) -> Self {
        let named = |worker: &Worker| Named {
            name: worker.entrant.name.to_owned(),
            role: worker.entrant.role,
            version: worker.version.clone(),
        };
        // An allocator in Python has one worker for each Python, but is only one entrant.
        let mut entrants: Vec<_> = workers.iter().map(named).collect();
        entrants.dedup_by(|one, other| one.name == other.name);
        let runs = tasks.iter().flat_map(|task| task.runs.iter().map(move |run| (task, run)));
        let figures =
            runs.map(|(task, run)| Record::new(task, &workers[run.worker], &run.answers)).collect();
        let command = std::env::args().skip(1).collect();
        Self { machine, command, rounds, chunks, entrants, left_out, figures, fragmentation }
    }

    pub(super) fn method(&self) -> String {
        let (rounds, chunks) = (self.rounds, self.chunks);
        let huge = rounds.min(schedule::MOST_HUGE);
        format!(
            "Medians of {rounds} rounds. In each round a process of its own runs {chunks} chunk(s) \
             of a workload, or one chunk if that takes a second, and at most {huge} rounds are run \
             if it takes many. The interquartile range of the rounds is in brackets. Everything is \
             compiled with fat LTO."
        )
    }

    pub(super) fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<_> = self.figures.iter().map(|record| record.group).collect();
        groups.dedup();
        groups
    }

    pub(super) fn entrants_of(&self, group: Group) -> Vec<&Named> {
        let ran = |one: &&Named| {
            self.figures.iter().any(|record| record.group == group && record.entrant == one.name)
        };
        self.entrants.iter().filter(ran).collect()
    }

    pub(super) fn figures(&self, group: Group, (measure, of): Measured) -> Figures {
        let entrants = self.entrants_of(group);
        let records: Vec<_> = self.figures.iter().filter(|one| one.group == group).collect();
        let mut workloads: Vec<_> = records.iter().map(|one| &one.workload).collect();
        workloads.dedup();
        let row = |workload: &String| {
            let figure = |entrant: &&Named| {
                let is_it =
                    |one: &&&Record| one.workload == *workload && one.entrant == entrant.name;
                of(records.iter().find(is_it)?)
            };
            (workload.clone(), entrants.iter().map(figure).collect())
        };
        let rows = workloads.iter().map(|workload| row(workload)).collect();
        let columns = entrants.iter().map(|one| one.name.clone()).collect();
        let mut figures = Figures::new(measure, columns, rows);
        if group == Group::Python {
            add_means_of_versions(&mut figures);
        }
        figures
    }
}

/// Adds a mean for each Python version before the mean over all workloads.
fn add_means_of_versions(figures: &mut Figures) {
    let version = |row: &usize| figures.rows[*row].0.split(' ').next().unwrap_or_default();
    let all: Vec<_> = (0..figures.rows.len()).collect();
    let by_version = all.chunk_by(|one, next| version(one) == version(next));
    let mut means: Vec<_> = by_version
        .map(|rows| (format!("geometric mean, {}", version(&rows[0])), rows.to_vec()))
        .collect();
    means.append(&mut figures.means);
    figures.means = means;
}

impl Record {
    fn new(task: &Task, worker: &Worker, answers: &[Answer]) -> Self {
        let rounds: Vec<_> = answers.iter().map(|answer| answer.nanoseconds).collect();
        let overheads: Option<Vec<_>> = answers.iter().map(|answer| answer.overhead).collect();
        let median_of =
            |of: fn(&Answer) -> u64| figures::median(answers.iter().map(|one| of(one) as f64));
        let is_global = worker.entrant.global;
        let is_program = matches!(task.listed.group, Group::Programs | Group::C);
        Self {
            group: task.listed.group,
            workload: task.listed.name.clone(),
            entrant: worker.entrant.name.to_owned(),
            nanoseconds: figures::median(rounds.iter().copied()),
            spread: figures::spread(&rounds),
            peak: is_global.then(|| median_of(|one| one.peak)),
            end: is_global.then(|| median_of(|one| one.end)),
            faults: (is_global && is_program).then(|| median_of(faults_beyond_peak)),
            overhead: overheads.map(figures::median),
            rounds,
        }
    }
}

/// Returns the page faults of a process, minus one for each page of its peak.
fn faults_beyond_peak(answer: &Answer) -> u64 {
    answer.faults.saturating_sub(answer.peak / PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Results {
        /// Returns the results of one workload. The first allocator is ours.
        pub(in crate::bench) fn of_times(
            group: Group,
            workload: &str,
            times: &[(&str, f64)],
        ) -> Self {
            let record = |(entrant, nanoseconds): &(&str, f64)| Record {
                group,
                workload: workload.to_owned(),
                entrant: (*entrant).to_owned(),
                nanoseconds: *nanoseconds,
                spread: 0.0,
                peak: None,
                end: None,
                faults: None,
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
                fragmentation: Vec::new(),
                entrants: times.iter().enumerate().map(named).collect(),
                figures: times.iter().map(record).collect(),
            }
        }
    }

    #[test]
    fn page_faults_are_counted_beyond_the_peak() {
        let answer = |faults, peak| {
            faults_beyond_peak(&Answer { nanoseconds: 1.0, peak, end: 0, faults, overhead: None })
        };
        assert_eq!(answer(250, 100 * PAGE), 150);
        assert_eq!(answer(50, 100 * PAGE), 0);
    }

    #[test]
    fn each_python_has_a_mean_of_its_own() {
        let mut results = Results::of_times(Group::Python, "3.13.0 float", &[("ours", 1.0)]);
        let older = Record { workload: "3.12.0 float".to_owned(), ..results.figures[0].clone() };
        results.figures.push(older);
        let names: Vec<_> =
            results.figures(Group::Python, TIME).means.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["geometric mean, 3.13.0", "geometric mean, 3.12.0", "geometric mean"]);
    }
}
