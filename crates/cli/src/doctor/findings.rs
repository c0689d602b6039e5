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
    /// Says whether our heap serves mem and obj, if this is known.
    pub in_force: Option<bool>,
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
            in_force: Some(report.as_ref().is_ok_and(|report| report.in_force)),
            state: report.map_or_else(|reason| reason, state),
        }
    }

    /// Describes a process that has no report, by its status page or by what the system knows.
    pub(super) fn of_process(process: &Process) -> Self {
        let pid = process.pid.to_string();
        if let Some(report) = &process.published {
            return Self::new(&process.command, pid, Ok(report));
        }
        match why_not(process) {
            Some(reason) => {
                Self::new(&process.command, pid, Err(format!("not in force: {reason}")))
            }
            None => {
                Self { in_force: None, ..Self::new(&process.command, pid, Err(UNKNOWN.to_owned())) }
            }
        }
    }
}

const UNKNOWN: &str = "unknown: the library is loaded, but the process left no figures";

/// Returns the reason why `process` does not use our heap, if what the system knows is enough.
fn why_not(process: &Process) -> Option<String> {
    let Process { is_python, has_library, was_preloaded, started, .. } = process;
    match (is_python, has_library, was_preloaded) {
        (_, true, _) => started.refusal(),
        (false, ..) => Some("it is no Python, and the library is not loaded".to_owned()),
        (true, false, false) => {
            Some("it was started without our LD_PRELOAD, for example with env={}".to_owned())
        }
        (true, false, true) => {
            Some("the loader could not load the library that LD_PRELOAD names".to_owned())
        }
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
        let all = self.processes.len();
        let with = |state| self.processes.iter().filter(move |finding| finding.in_force == state);
        let (unserved, unknown) = (with(Some(false)), with(None));
        if all == 0 {
            return Err(Failure::new("no Python was seen")
                .because("the command started none, or ended before a Python in the background")
                .remedy("run it in the foreground, or `obmalloc doctor PID` while it runs")
                .code(NO));
        }
        if let Some(first) = unserved.clone().next() {
            let what = format!("our heap is not in force in {} of {all}", unserved.count());
            return Err(Failure::new(what + " processes").because(&first.state).code(NO));
        }
        if let Some(first) = unknown.clone().next() {
            let what = format!("cannot know whether our heap is in force in {}", unknown.count());
            return Err(Failure::new(format!("{what} of {all} processes"))
                .because(&first.state)
                .remedy("start it with `obmalloc run`, or set OBMALLOC_STATUS=on, and let it work")
                .code(NO));
        }
        Ok(())
    }
}
