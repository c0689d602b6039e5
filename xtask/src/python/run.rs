//! Runs Python programs on our heap.

use std::{os::unix::process::ExitStatusExt, process};

use anyhow::{Context, Result};
use obmalloc_cli::run::preloaded;
use testkit::pythons::Python;

use super::programs::Program;
use crate::workspace;

/// Runs `programs` with each of `pythons`, and exits with the status of a program that fails.
pub(super) fn run(pythons: &[Python], programs: &[Program], stats: bool) -> Result<()> {
    let libraries = workspace::build_libraries()?;
    for python in pythons {
        for program in programs {
            if program.bundled {
                println!("{}, {}:", program.name, python.name());
            }
            let mut command = preloaded(&program.invocation(python), &libraries, false)?;
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
