//! Describes the machine and the versions of software with which figures were measured.

use std::{fmt, fs, process::Command};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{process, workspace};

#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    processor: String,
    /// The number of hardware threads that this process may use.
    cores: usize,
    memory: u64,
    system: String,
    compiler: String,
    /// The measured commit, with a mark if some files differed from it.
    commit: String,
    date: String,
    /// The system's load before the run, averaged over a minute.
    load: f64,
}

impl Machine {
    pub(super) fn new() -> Self {
        let unknown = || "unknown".to_owned();
        let load = || fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok();
        Self {
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: field("/proc/meminfo", "MemTotal").map_or(0, bytes),
            system: said("uname", &["-sr"]).unwrap_or_else(unknown),
            compiler: compiler(),
            commit: said("git", &["describe", "--always", "--dirty"]).unwrap_or_else(unknown),
            date: said("date", &["-u", "+%Y-%m-%d %H:%M"]).unwrap_or_else(unknown),
            load: load().unwrap_or(0.0),
        }
    }

    pub(super) fn warning(&self) -> Option<String> {
        (self.load > 1.0).then(|| {
            let load = self.load;
            format!(
                "UNDER LOAD: the load was {load} before the run, so times can be too long and vary"
            )
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cores, system, compiler, commit, date, load, .. } = self;
        let memory = self.memory as f64 / f64::from(1 << 30);
        write!(
            f,
            "{processor} ({cores} hardware threads), {memory:.1} GiB, {system}, {compiler}; "
        )?;
        write!(f, "{date} UTC, commit {commit}, load {load} before the run")
    }
}

pub(super) fn compiler() -> String {
    said("rustc", &["--version"]).unwrap_or_else(|| "an unknown compiler".to_owned())
}

pub(super) fn available() -> u64 {
    field("/proc/meminfo", "MemAvailable").map_or(0, bytes)
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn bytes(text: String) -> u64 {
    text.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    let said = process::stdout_of(command.current_dir(workspace::root()).args(arguments)).ok()?;
    Some(said.trim().to_owned())
}

pub(super) fn version_of(package: &str) -> Result<String> {
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
    fn a_packages_version_is_read_from_the_lock_file() {
        assert_eq!(version_of("benches").unwrap(), env!("CARGO_PKG_VERSION"));
        assert!(version_of("no-such-package").is_err());
    }

    #[test]
    fn only_a_load_above_one_gives_a_warning() {
        let under = |load| Machine { load, ..Machine::new() }.warning();
        assert_eq!(under(1.0), None);
        assert!(under(1.5).unwrap().contains("the load was 1.5"));
    }
}
