//! The findings about processes, and their output.

#![forbid(unsafe_code)]

use serde::Serialize;

use crate::{
    failure::{Failure, NO, Result},
    processes::Process,
    reports::Report,
    table::Table,
};

const DOMAINS: [&str; 3] = ["raw", "mem", "obj"];

/// The findings about one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The path of the Python, or the command line of the process.
    pub python: String,
    /// The process id, or a description of the process such as `a child`.
    pub process: String,
    /// The allocators that serve the domains raw, mem and obj. `?` means unknown.
    pub domains: [String; 3],
    /// True if our heap serves mem and obj.
    pub in_force: bool,
    /// A text that says whether our heap serves mem and obj, and if not, why.
    pub state: String,
}

/// The findings about several processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Findings {
    schema: u32,
    processes: Vec<Finding>,
}

impl Finding {
    /// Describes a process by its report, or by the reason why there is no report.
    pub(super) fn new(
        python: impl Into<String>,
        process: impl Into<String>,
        report: Result<&Report, String>,
    ) -> Self {
        let domains = DOMAINS
            .map(|domain| report.as_ref().map_or("?", |report| server(report, domain)).to_owned());
        Self {
            python: python.into(),
            process: process.into(),
            domains,
            in_force: report.as_ref().is_ok_and(|report| report.in_force),
            state: report.map_or_else(|reason| reason, state),
        }
    }

    /// Describes a process that has no report, by the information that the system has about it.
    pub(super) fn of_process(process: &Process) -> Self {
        let Process { is_python, has_library, was_preloaded, .. } = process;
        let state = match (is_python, has_library, was_preloaded) {
            (_, true, _) => "the library is loaded",
            (false, ..) => "it is no Python, and the library is not loaded",
            (true, false, false) => {
                "not in force: it was started without our LD_PRELOAD, for example with env={}"
            }
            (true, false, true) => {
                "not in force: the loader could not load the library that LD_PRELOAD names"
            }
        };
        let mut finding = Self::new(&process.command, process.pid.to_string(), Err(state.into()));
        finding.in_force = *has_library;
        finding
    }
}

fn state(report: &Report) -> String {
    if report.in_force {
        return "in force".to_owned();
    }
    format!("not in force: {}", report.reason.as_deref().unwrap_or("no reason given"))
}

fn server<'a>(report: &'a Report, domain: &str) -> &'a str {
    match report.domains.get(domain) {
        None => "?",
        Some(found) if found.served_by == "library" => &found.library,
        Some(found) => &found.served_by,
    }
}

impl Findings {
    /// Collects findings.
    pub fn new(processes: Vec<Finding>) -> Self {
        Self { schema: 1, processes }
    }

    /// Returns a table with a row for each process.
    pub fn table(&self) -> Table {
        let mut table = Table::new(["Python", "process", "raw", "mem", "obj", "our heap"]);
        for Finding { python, process, domains, state, .. } in &self.processes {
            let mut row = vec![python.clone(), process.clone()];
            row.extend(domains.clone());
            row.push(state.clone());
            table.add(row);
        }
        table
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    pub(super) fn verdict(&self) -> Result<()> {
        let unserved: Vec<_> = self.processes.iter().filter(|finding| !finding.in_force).collect();
        match &unserved[..] {
            [] if self.processes.is_empty() => {
                Err(Failure::new("no Python was seen").because("the command started none").code(NO))
            }
            [] => Ok(()),
            [first, ..] => {
                let (count, all) = (unserved.len(), self.processes.len());
                let what = format!("our heap is not in force in {count} of {all} processes");
                Err(Failure::new(what).because(&first.state).code(NO))
            }
        }
    }
}
