//! Runs workers, which are programs that introduce themselves and then run workloads.

use std::{ffi::OsString, path::PathBuf, process::Command};

use anyhow::{Context, Result};
use benches::{
    fragmentation::Interval,
    protocol::{Answer, Introduction},
};
use serde::de::DeserializeOwned;
use testkit::pythons::clean_command;

use super::{entrant::Entrant, machine};
use crate::process;

#[derive(Debug)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(&'static str, OsString)>,
}

impl Program {
    fn under(&self, tool: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = clean_command(tool);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn ask<T: DeserializeOwned>(&self, question: &[&str]) -> Result<T> {
        let mut command = self.under(&self.path);
        let answer = process::stdout_of(command.args(&self.arguments).args(question))?;
        serde_json::from_str(&answer).with_context(|| format!("{command:?} answered {answer:?}"))
    }
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) entrant: Entrant,
    program: Program,
    pub(super) introduction: Introduction,
    pub(super) version: String,
}

impl Worker {
    pub(super) fn introduced(entrant: Entrant, program: Program) -> Result<Self> {
        let introduction = program.ask::<Introduction>(&["list"])?;
        let mut versions = Vec::new();
        if let Some(package) = entrant.package {
            versions.push(format!("crate {}", machine::version_of(package)?));
        }
        versions.extend(introduction.library.as_ref().map(|version| version.trim().to_owned()));
        Ok(Self { entrant, program, introduction, version: versions.join(", ") })
    }

    /// Runs `workload` in a separate process, with one chunk to warm up and `chunks` measured ones.
    pub(super) fn run(&self, workload: &str, chunks: u32) -> Result<Answer> {
        let answer = self.program.ask(&["run", workload, &chunks.to_string()]);
        answer.with_context(|| format!("{}: {workload}", self.entrant.name))
    }

    /// Replaces blocks of mixed sizes for the given number of seconds.
    pub(super) fn fragment(&self, seconds: u64) -> Result<Vec<Interval>> {
        let answer = self.program.ask(&["fragment", &seconds.to_string()]);
        answer.with_context(|| format!("{}: fragmentation", self.entrant.name))
    }

    pub(super) fn watched(&self, tool: &str, options: &[&str], name: &str) -> Command {
        let mut command = self.program.under(tool);
        command.args(options).arg(&self.program.path).args(["count", name]);
        command
    }
}
