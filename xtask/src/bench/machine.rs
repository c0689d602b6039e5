//! What the figures were measured on, and of which versions.

use std::{fmt, fs};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use xshell::cmd;

use crate::workspace;

/// The machine, and what was on it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The processor's model.
    pub(crate) processor: String,
    /// Threads that it runs at once.
    pub(crate) cores: usize,
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Kernel and its version.
    pub(crate) system: String,
    /// The compiler's version.
    pub(crate) compiler: String,
    /// The commit that was measured, with a mark when files differed from it.
    pub(crate) commit: String,
    /// When, in UTC.
    pub(crate) date: String,
    /// Processes that wanted to run as the run ended, over a minute: 0 on a quiet machine.
    pub(crate) load: f64,
}

impl Machine {
    /// This machine, now.
    pub(crate) fn new() -> Self {
        let unknown = || "unknown".to_owned();
        Self {
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: field("/proc/meminfo", "MemTotal").map_or(0, kibibytes),
            system: said("uname", &["-sr"]).unwrap_or_else(unknown),
            compiler: said("rustc", &["--version"]).unwrap_or_else(unknown),
            commit: said("git", &["describe", "--always", "--dirty"]).unwrap_or_else(unknown),
            date: said("date", &["-u", "+%Y-%m-%d %H:%M"]).unwrap_or_else(unknown),
            load: load().unwrap_or(0.0),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({} threads at once), {:.1} GiB, {}, {}; {} UTC, commit {}, load {} at the end",
            self.processor,
            self.cores,
            self.memory as f64 / f64::from(1 << 30),
            self.system,
            self.compiler,
            self.date,
            self.commit,
            self.load,
        )
    }
}

/// What the kernel tells under `name`.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Bytes that programs can still have.
pub(super) fn available() -> u64 {
    field("/proc/meminfo", "MemAvailable").map_or(0, kibibytes)
}

fn kibibytes(text: String) -> u64 {
    text.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let shell = workspace::shell().ok()?;
    cmd!(shell, "{program} {arguments...}").quiet().ignore_stderr().read().ok()
}

/// The version of `package` that the lock file has.
pub(crate) fn version_of(package: &str) -> Result<String> {
    let lock = fs::read_to_string(workspace::root().join("Cargo.lock"))?;
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name).skip(1);
    let version = lines.next().and_then(|line| line.strip_prefix("version = "));
    let version = version.with_context(|| format!("{package} is not in Cargo.lock"))?;
    Ok(version.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packages_version_is_the_lock_files() {
        assert_eq!(version_of("benches").unwrap(), env!("CARGO_PKG_VERSION"));
        assert!(version_of("no-such-package").is_err());
    }
}
