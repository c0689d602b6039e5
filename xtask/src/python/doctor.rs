//! Who serves which domain, in a Python and in a child of it, and what undid our installation.

use std::{ffi::OsString, path::Path};

use anyhow::{Result, ensure};
use comfy_table::{Table, presets};
use testkit::pythons::Python;

use super::{
    report::{Report, Reports},
    run::preloaded,
};
use crate::workspace;

/// What is run: a Python that starts another one, as programs do.
const PROGRAM: &str = "import subprocess, sys; \
                       subprocess.run([sys.executable, '-c', 'pass'], check=True)";

/// The domains, in the order of the table.
const DOMAINS: [&str; 3] = ["raw", "mem", "obj"];

/// Looks at each of `pythons`, started with `options`, and prints a table.
///
/// Fails when a Python that we are for does not run on our heap.
pub(super) fn run(pythons: &[Python], options: &[OsString]) -> Result<()> {
    ensure!(!pythons.is_empty(), "no CPython was found; name one with --with");
    let library = workspace::build_library()?;
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["Python", "process", "raw", "mem", "obj", "our heap"]);
    let mut unserved = Vec::new();
    for python in pythons {
        let patients = examine(python, &library, options)?;
        if python.is_supported() && !patients.iter().all(Patient::is_served) {
            unserved.push(python.name());
        }
        for patient in &patients {
            table.add_row(patient.row(python));
        }
    }
    println!("{table}");
    ensure!(unserved.is_empty(), "our heap does not serve {}", unserved.join(", nor "));
    Ok(())
}

/// A process that was looked at.
struct Patient {
    process: &'static str,
    report: Option<Report>,
    /// What to say where there is no report.
    silence: String,
}

/// Runs `python` and a child of it.
fn examine(python: &Python, library: &Path, options: &[OsString]) -> Result<Vec<Patient>> {
    let reports = Reports::new()?;
    let mut command = preloaded(python, library);
    reports.ask(&mut command);
    command.args(options).args(["-c", PROGRAM]);
    let child = command.stderr(std::process::Stdio::piped()).spawn()?;
    let pid = child.id();
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let silence = silence(&stderr);
    let mut reports = reports.read()?;
    let patient = |process, report| Patient { process, report, silence: silence.clone() };
    let itself = patient("itself", reports.remove(&pid));
    let child = patient("a child", reports.into_values().next());
    Ok(vec![itself, child])
}

/// What to say of a process without a report, after a run that wrote `stderr`: the last line that
/// tells of an error, or else the last one.
fn silence(stderr: &str) -> String {
    let lines = || stderr.trim().lines();
    let error = lines().rfind(|line| line.contains("rror:"));
    match error.or(lines().last()) {
        Some(line) => format!("no report: {line}"),
        None => "no report: the library found no CPython in the process".to_owned(),
    }
}

impl Patient {
    fn is_served(&self) -> bool {
        self.report.as_ref().is_some_and(|report| report.in_force)
    }

    fn row(&self, python: &Python) -> Vec<String> {
        let served_by =
            |domain: &str| self.report.as_ref().map_or("?", |report| report.server(domain));
        let mut row = vec![python.name(), self.process.to_owned()];
        row.extend(DOMAINS.map(|domain| served_by(domain).to_owned()));
        row.push(match &self.report {
            None => self.silence.clone(),
            Some(Report { in_force: true, .. }) => "in force".to_owned(),
            Some(report) => {
                format!("not in force: {}", report.reason.as_deref().unwrap_or("no reason given"))
            }
        });
        row
    }
}

impl Report {
    /// Who serves `domain`: CPython, obmalloc, or the file of another library.
    fn server(&self, domain: &str) -> &str {
        match self.domains.get(domain) {
            None => "?",
            Some(found) if found.served_by == "library" => &found.library,
            Some(found) => &found.served_by,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_that_does_not_start_is_told_by_its_error() {
        let stderr = "obmalloc: not installed: PYTHONMALLOC=x makes CPython use its own\n\
                      Fatal Python error: PYTHONMALLOC: unknown allocator\n\
                      Python runtime state: preinitializing\n\n";
        let error = "no report: Fatal Python error: PYTHONMALLOC: unknown allocator";
        assert_eq!(silence(stderr), error);
        assert_eq!(silence("obmalloc: not installed\n"), "no report: obmalloc: not installed");
    }

    #[test]
    fn a_process_that_says_nothing_has_no_cpython() {
        assert!(silence("").contains("found no CPython"));
    }
}
