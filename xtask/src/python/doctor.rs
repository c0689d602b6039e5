//! Reports which allocator each of CPython's domains uses, in a Python and in its child.

use std::{ffi::OsString, path::Path, process::Stdio};

use anyhow::{Result, ensure};
use testkit::pythons::Python;

use super::{
    reports::{Report, Reports},
    run::preloaded,
};
use crate::{report::Table, workspace};

const PROGRAM: &str = "import subprocess, sys; \
                       subprocess.run([sys.executable, '-c', 'pass'], check=True)";

const DOMAINS: [&str; 3] = ["raw", "mem", "obj"];

/// Examines each of `pythons`, started with `options`, and prints a table.
///
/// # Errors
///
/// Fails if a supported Python does not run on our heap.
pub(super) fn run(pythons: &[Python], options: &[OsString]) -> Result<()> {
    ensure!(!pythons.is_empty(), "no CPython was found; name one with --with");
    let library = workspace::build_library()?;
    let mut table = Table::new(["Python", "process", "raw", "mem", "obj", "our heap"]);
    let mut unserved = Vec::new();
    for python in pythons {
        let (reports, silence) = examine(python, &library, options)?;
        let is_served =
            |report: &Option<Report>| report.as_ref().is_some_and(|report| report.in_force);
        if python.is_supported() && !reports.iter().all(is_served) {
            unserved.push(python.name());
        }
        for (process, report) in ["itself", "a child"].into_iter().zip(&reports) {
            let mut row = vec![python.name(), process.to_owned()];
            let server = |domain| report.as_ref().map_or("?", |report| server(report, domain));
            row.extend(DOMAINS.map(|domain| server(domain).to_owned()));
            row.push(report.as_ref().map_or(silence.clone(), state));
            table.add(row);
        }
    }
    println!("{table}");
    ensure!(unserved.is_empty(), "our heap does not serve {}", unserved.join(", nor "));
    Ok(())
}

/// Runs `python` and a child process, and returns the reports of both.
fn examine(
    python: &Python,
    library: &Path,
    options: &[OsString],
) -> Result<([Option<Report>; 2], String)> {
    let reports = Reports::new()?;
    let mut command = preloaded(python, library);
    reports.ask(&mut command);
    let child = command.args(options).args(["-c", PROGRAM]).stderr(Stdio::piped()).spawn()?;
    let pid = child.id();
    let output = child.wait_with_output()?;
    let mut reports = reports.read()?;
    let itself = reports.remove(&pid);
    let silence = silence(&String::from_utf8_lossy(&output.stderr));
    Ok(([itself, reports.into_values().next()], silence))
}

/// Returns the line of `stderr` that best describes why a process wrote no report.
fn silence(stderr: &str) -> String {
    let lines = || stderr.trim().lines();
    let error = lines().rfind(|line| line.contains("rror:"));
    match error.or(lines().last()) {
        Some(line) => format!("no report: {line}"),
        None => "no report: the library found no CPython in the process".to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_that_does_not_start_is_described_by_its_error() {
        let stderr = "obmalloc: not installed: PYTHONMALLOC=x makes CPython use its own\n\
                      Fatal Python error: PYTHONMALLOC: unknown allocator\n\
                      Python runtime state: preinitializing\n\n";
        let error = "no report: Fatal Python error: PYTHONMALLOC: unknown allocator";
        assert_eq!(silence(stderr), error);
        assert_eq!(silence("obmalloc: not installed\n"), "no report: obmalloc: not installed");
    }

    #[test]
    fn a_process_that_prints_nothing_has_no_cpython() {
        assert!(silence("").contains("found no CPython"));
    }
}
