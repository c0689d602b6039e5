//! Runs Python programs on our heap.

use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{self, Command},
};

use anyhow::{Context, Result};
use testkit::pythons::Python;

use super::programs::Program;
use crate::workspace;

/// Returns a command that runs `python` with our library preloaded. The environment is otherwise
/// that of the user.
pub(super) fn preloaded(python: &Python, library: &Path) -> Command {
    let mut preload = OsString::from(library);
    if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    let mut command = Command::new(&python.executable);
    command.env("LD_PRELOAD", preload);
    command
}

/// Runs `programs` with each of `pythons`. If a program fails, exits with the status of that
/// program.
pub(super) fn run(pythons: &[Python], programs: &[Program], stats: bool) -> Result<()> {
    let library = workspace::build_library()?;
    for python in pythons {
        for program in programs {
            if program.bundled {
                println!("{}, {}:", program.name, python.name());
            }
            let mut command = preloaded(python, &library);
            command.args(&program.args);
            if stats {
                command.env("OBMALLOC_STATS", "1");
            }
            let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
            if !status.success() {
                // If a signal killed the program, we exit with 128 plus the signal's number, as a
                // shell does.
                let killed = || 128 + status.signal().unwrap_or_default();
                process::exit(status.code().unwrap_or_else(killed));
            }
        }
    }
    Ok(())
}
