//! Examines a Python and a child of it.

#![forbid(unsafe_code)]

use std::{ffi::OsString, path::Path, process::Stdio};

use super::Finding;
use crate::{
    failure::{Attempt, Result},
    libraries::Libraries,
    program,
    reports::Reports,
    run::preloaded,
    target::Invocation,
};

const PROGRAM: &str = "import subprocess, sys; \
                       subprocess.run([sys.executable, '-c', 'pass'], check=True)";

/// Runs the Python at `path` with `options`. The Python starts a child, and we describe both.
///
/// # Errors
///
/// Fails if the Python cannot be started, or if the library cannot be preloaded into it.
pub fn examine(
    path: &Path,
    name: &str,
    libraries: &Libraries,
    options: &[OsString],
) -> Result<[Finding; 2]> {
    program::check(path)?;
    let reports = Reports::new()?;
    let mut args = options.to_vec();
    args.extend(["-c", PROGRAM].map(OsString::from));
    let invocation = Invocation { path: path.to_owned(), name: path.into(), args };
    let mut command = preloaded(&invocation, libraries, false)?;
    reports.ask(&mut command);
    let cannot = || format!("cannot start {}", path.display());
    let child = command.stderr(Stdio::piped()).spawn().attempt(cannot)?;
    let pid = child.id();
    let output = child.wait_with_output().attempt(cannot)?;
    let mut reports = reports.read()?;
    let itself = reports.remove(&pid);
    let silence = silence(&String::from_utf8_lossy(&output.stderr));
    let seen = [("itself", itself), ("a child", reports.into_values().next())];
    Ok(seen.map(|(process, report)| {
        Finding::new(name, process, report.as_ref().ok_or_else(|| silence.clone()))
    }))
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
