//! Reports which allocator each of CPython's domains uses, in a Python and in its child.

use std::ffi::OsString;

use anyhow::{Result, ensure};
use obmalloc_cli::doctor::{Findings, examine};
use testkit::pythons::Python;

use crate::workspace;

/// Examines each of `pythons`, started with `options`, and prints a table.
///
/// # Errors
///
/// Fails if a supported Python does not run on our heap.
pub(super) fn run(pythons: &[Python], options: &[OsString]) -> Result<()> {
    ensure!(!pythons.is_empty(), "no CPython was found; name one with --with");
    let libraries = workspace::build_libraries()?;
    let (mut findings, mut unserved) = (Vec::new(), Vec::new());
    for python in pythons {
        let found = examine(&python.executable, &python.name(), &libraries, options)?;
        if python.is_supported() && !found.iter().all(|finding| finding.in_force == Some(true)) {
            unserved.push(python.name());
        }
        findings.extend(found);
    }
    println!("{}", Findings::new(findings).table());
    ensure!(unserved.is_empty(), "our heap does not serve {}", unserved.join(", nor "));
    Ok(())
}
