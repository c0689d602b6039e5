//! A worker as the bench sees it: a program, what it says of itself, and how it is asked.

use std::{ffi::OsString, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use benches::protocol::{Answer, Introduction};
use serde::de::DeserializeOwned;
use testkit::pythons::clean_command;

use super::{entrant::Entrant, machine};

/// A program that answers.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) entrant: Entrant,
    path: PathBuf,
    environment: Vec<(&'static str, OsString)>,
    pub(super) introduction: Introduction,
    /// The package's version and the library's, as far as they are known.
    pub(super) version: String,
}

impl Worker {
    /// The program at `path`, after it has answered.
    pub(super) fn introduced(
        entrant: Entrant,
        path: PathBuf,
        environment: Vec<(&'static str, OsString)>,
    ) -> Result<Self> {
        let introduction = ask(&path, &environment, &["list"])?;
        let mut worker = Self { entrant, path, environment, introduction, version: String::new() };
        worker.version = worker.versions()?.join(", ");
        Ok(worker)
    }

    fn versions(&self) -> Result<Vec<String>> {
        let mut versions = Vec::new();
        if let Some(package) = self.entrant.package {
            versions.push(format!("crate {}", machine::version_of(package)?));
        }
        versions.extend(self.introduction.library.clone());
        Ok(versions)
    }

    /// A process that runs `workload`, a chunk to warm up and then `chunks`.
    pub(super) fn run(&self, workload: &str, chunks: u32) -> Result<Answer> {
        ask(&self.path, &self.environment, &["run", workload, &chunks.to_string()])
            .with_context(|| format!("{}: {workload}", self.entrant.name))
    }
}

impl Worker {
    /// `tool`, in the environment that the worker needs.
    pub(super) fn under(&self, tool: &str) -> Command {
        let mut command = clean_command(tool);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Names the worker's program to a tool.
    pub(super) fn add_itself(&self, command: &mut Command) {
        command.arg(&self.path);
    }
}

fn ask<T: DeserializeOwned>(
    path: &PathBuf,
    environment: &[(&'static str, OsString)],
    arguments: &[&str],
) -> Result<T> {
    let mut command = clean_command(path);
    command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
    let output = command.output().with_context(|| format!("cannot start {}", path.display()))?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!("{command:?} answered {:?}", String::from_utf8_lossy(&output.stdout))
    })
}
