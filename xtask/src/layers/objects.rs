//! The runtime of `examples/objects`: how it is built, and one run of it.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use xshell::cmd;

use crate::workspace;

/// The layers that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Malloc,
    Pools,
    Caches,
}

impl Choice {
    /// From the lowest layer up: each has those before it.
    pub(super) const ALL: [Self; 3] = [Self::Malloc, Self::Pools, Self::Caches];

    /// How tables call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Malloc => "malloc alone",
            Self::Pools => "+ pools",
            Self::Caches => "+ caches",
        }
    }

    const fn switches(self) -> &'static [&'static str] {
        match self {
            Self::Malloc => &[],
            Self::Pools => &["--pools"],
            Self::Caches => &["--pools", "--caches"],
        }
    }
}

/// How the programs are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// Quickly.
    Dev,
    /// To be measured.
    Release,
}

/// What one run of a program says of itself.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Outcome {
    pub(super) printed: String,
    /// Wall time of each of its rounds, which are one.
    pub(super) seconds: [f64; 1],
    /// The most memory it had, where the system tells.
    pub(super) peak_kib: Option<u64>,
    /// Takes that a cache served.
    pub(super) hits: u64,
    /// Takes that went past the caches to the layer below.
    pub(super) misses: u64,
}

/// The runtime, built.
#[derive(Debug)]
pub(super) struct Objects {
    executable: PathBuf,
}

impl Objects {
    pub(super) fn build(profile: Profile) -> Result<Self> {
        let shell = workspace::shell()?;
        let (switches, folder): (&[&str], _) = match profile {
            Profile::Dev => (&[], "debug"),
            Profile::Release => (&["--release"], "release"),
        };
        cmd!(shell, "cargo build --quiet --package objects {switches...}").quiet().run()?;
        let executable = workspace::target_dir().join(folder).join("objects");
        let executable = executable.canonicalize().context("cargo built no runtime")?;
        Ok(Self { executable })
    }

    /// The programs that it knows.
    pub(super) fn programs(&self) -> Result<Vec<String>> {
        let names = self.ask(&["--list"])?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Runs `program` once on `choice`.
    pub(super) fn run(&self, program: &str, choice: Choice) -> Result<Outcome> {
        let line = self.ask(&[&[program, "--json"], choice.switches()].concat())?;
        serde_json::from_str(&line)
            .with_context(|| format!("{program} does not say what it cost: {line}"))
    }

    fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.executable)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", self.executable.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }
}
