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

/// Runs `programs` with each of `pythons`, and exits with the status of a program that fails.
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
                // A shell adds 128 to the number of the signal that killed a program.
                let killed = || 128 + status.signal().unwrap_or_default();
                process::exit(status.code().unwrap_or_else(killed));
            }
        }
    }
    Ok(())
}
