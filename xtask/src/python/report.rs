//! What the library writes about a process, as JSON.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context, Result};
use serde::Deserialize;

/// One process's report.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) pid: u32,
    /// Our heap serves the mem and obj domains.
    pub(crate) in_force: bool,
    /// Why it does not, if the library knows.
    pub(crate) reason: Option<String>,
    pub(crate) domains: BTreeMap<String, Domain>,
    pub(crate) served: Option<Served>,
}

/// Who serves a domain.
#[derive(Debug, Deserialize)]
pub(crate) struct Domain {
    pub(crate) served_by: String,
    /// The file that holds the functions.
    pub(crate) library: Option<String>,
}

/// What came from our pools.
#[derive(Debug, Deserialize)]
pub(crate) struct Served {
    /// Of the requests of at most 512 bytes, from 0 to 1.
    pub(crate) share: f64,
}

/// Runs `command` on the library, and returns the reports of its process and of all its children
/// that wrote one, by process number.
pub(crate) fn collect(mut command: Command, library: &Path) -> Result<(u32, Vec<Report>, String)> {
    let folder = tempfile::tempdir()?;
    command.env("LD_PRELOAD", library).env("OBMALLOC_STATS", folder.path().join("%p.json"));
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let process = child.id();
    let output = child.wait_with_output()?;
    let mut reports = Vec::new();
    for entry in fs::read_dir(folder.path())? {
        let text = fs::read_to_string(entry?.path())?;
        reports.push(serde_json::from_str(&text).with_context(|| format!("no report: {text}"))?);
    }
    Ok((process, reports, String::from_utf8_lossy(&output.stderr).into_owned()))
}
