//! Runs a command, and watches every Python that it starts.

#![forbid(unsafe_code)]

use std::{collections::BTreeMap, ffi::OsString, thread, time::Duration};

use super::{Finding, Findings};
use crate::{
    failure::{Attempt, Result},
    libraries::Libraries,
    processes::Family,
    program,
    reports::{Report, Reports},
    run::{preloaded, request_status},
    system::Waiting,
    target::Invocation,
};

/// The time between two examinations of the processes.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs `command` until it ends, and describes the Pythons that it started.
///
/// # Errors
///
/// Fails if the command cannot be started, or if the library cannot be preloaded into it.
pub(super) fn examine(command: &[OsString], libraries: &Libraries) -> Result<Findings> {
    let path = program::find(&command[0])?;
    if let Some(remark) = program::check(&path)?
        && !remark.is_printed_by_library()
    {
        eprintln!("obmalloc: {remark}");
    }
    let invocation = Invocation { path, name: command[0].clone(), args: command[1..].to_vec() };
    let mut command = preloaded(&invocation, libraries, false)?;
    let reports = Reports::new()?;
    reports.ask(&mut command);
    // The page tells about a process that a signal ends, which writes no report.
    request_status(&mut command);
    // The findings are printed to stdout.
    command.stdout(std::io::stderr());
    let cannot = || format!("cannot run {}", invocation.path.display());
    let mut child = command.spawn().attempt(cannot)?;
    let mut family = Family::default();
    let waiting = Waiting::new();
    while child.try_wait().attempt(cannot)?.is_none() {
        waiting.pass_on(&child);
        family.look(child.id());
        thread::sleep(PAUSE);
    }
    Ok(Findings::new(findings(&family, reports.read()?)))
}

fn findings(family: &Family, mut reports: BTreeMap<u32, Report>) -> Vec<Finding> {
    let mut findings: Vec<_> = family
        .pythons()
        .map(|process| match reports.remove(&process.pid) {
            Some(report) => Finding::new(&process.command, process.pid.to_string(), Ok(&report)),
            None => Finding::of_process(process),
        })
        .collect();
    let unseen = reports
        .iter()
        .map(|(pid, report)| Finding::new("a short-lived Python", pid.to_string(), Ok(report)));
    findings.extend(unseen);
    findings
}
