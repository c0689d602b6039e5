//! For each Python: which allocator serves which domain, in the process and in a child of it, and
//! what undid the installation.

use std::{path::Path, process::Command};

use anyhow::Result;
use comfy_table::{Table, presets};
use testkit::pythons::Python;

use super::report::{self, Report};

/// A process that starts a child of its own kind.
const PROGRAM: &str = "import subprocess, sys; subprocess.call([sys.executable, '-c', 'pass'])";

/// Prints a table for all of `pythons`. The environment is the caller's, so that what it does to an
/// installation is seen.
pub(crate) fn run(library: &Path, pythons: &[Python]) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["Python", "process", "raw", "mem", "obj", "why"]);
    for python in pythons {
        let mut command = Command::new(&python.executable);
        command.args(["-c", PROGRAM]);
        let (process, reports, stderr) = report::collect(command, library)?;
        for (label, is_child) in [("itself", false), ("its child", true)] {
            let found = reports.iter().find(|report| (report.pid != process) == is_child);
            table.add_row(row(&python.name(), label, found, &stderr));
        }
    }
    println!("library: {}", library.display());
    println!("{table}");
    Ok(())
}

fn row(python: &str, process: &str, found: Option<&Report>, stderr: &str) -> Vec<String> {
    let mut cells = vec![python.to_owned(), process.to_owned()];
    match found {
        Some(report) => {
            cells.extend(["raw", "mem", "obj"].map(|domain| serves(report, domain)));
            cells.push(why(report));
        }
        None => {
            cells.extend(["?"; 3].map(str::to_owned));
            let line = stderr.lines().find(|line| line.contains("obmalloc"));
            cells.push(line.unwrap_or("the library left no report").to_owned());
        }
    }
    cells
}

fn serves(report: &Report, domain: &str) -> String {
    let Some(domain) = report.domains.get(domain) else { return "?".to_owned() };
    let file = domain.library.as_deref().and_then(|path| Path::new(path).file_name());
    match file {
        Some(file) => format!("{} ({})", domain.served_by, file.display()),
        None => domain.served_by.clone(),
    }
}

fn why(report: &Report) -> String {
    match (&report.reason, report.in_force) {
        (Some(reason), _) => reason.clone(),
        (None, true) => "in force".to_owned(),
        (None, false) => "another allocator was installed after ours".to_owned(),
    }
}
