//! Pythons as workers, which run the benchmarks of pyperformance.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use testkit::pythons::{self, Python};

use super::{
    entrant::{Entrant, OUR_PYTHON, THEIR_PYTHON},
    worker::{Program, Worker},
};
use crate::{process, workspace};

const PYPERFORMANCE: &str = "pyperformance==1.14.0";

const BENCHMARKS: &str = "pyperformance/data-files/benchmarks";

const OLDEST: (u8, u8) = (3, 11);

pub(super) struct Pythons {
    pythons: Vec<Python>,
    pub(super) theirs: Vec<Worker>,
}

impl Pythons {
    pub(super) fn find() -> Result<Self> {
        let is_measured = |python: &Python| {
            python.is_supported() && (python.version.0, python.version.1) >= OLDEST
        };
        let pythons: Vec<_> = pythons::find().into_iter().filter(is_measured).collect();
        ensure!(!pythons.is_empty(), "no CPython 3.11 or later was found");
        let theirs: Result<_> =
            pythons.iter().map(|python| worker(THEIR_PYTHON, python, None)).collect();
        Ok(Self { theirs: theirs?, pythons })
    }

    /// Returns two workers for each Python, with and without our library. Installs pyperformance
    /// and builds the library.
    pub(super) fn workers(self) -> Result<Vec<Worker>> {
        install(&self.pythons[0])?;
        let library = workspace::build_library()?;
        let ours = self.pythons.iter().map(|python| worker(OUR_PYTHON, python, Some(&library)));
        let ours: Result<Vec<_>> = ours.collect();
        Ok(ours?.into_iter().chain(self.theirs).collect())
    }
}

fn worker(entrant: Entrant, python: &Python, library: Option<&Path>) -> Result<Worker> {
    // A fixed seed makes the hashes of strings the same in every run.
    let mut environment = vec![("PYTHONHASHSEED", "0".into())];
    environment.extend(library.map(|library| ("LD_PRELOAD", library.into())));
    let script = workspace::root().join("benches/python/worker.py");
    let arguments = vec![script.into(), folder().join(BENCHMARKS).into()];
    let program = Program { path: python.executable.clone(), arguments, environment };
    let mut worker = Worker::introduced(entrant, program)?;
    let versions = [&*worker.version, PYPERFORMANCE].into_iter();
    worker.version = versions.filter(|version| !version.is_empty()).collect::<Vec<_>>().join(", ");
    Ok(worker)
}

fn folder() -> PathBuf {
    workspace::target_dir().join(PYPERFORMANCE)
}

fn install(python: &Python) -> Result<()> {
    let folder = folder();
    if !folder.join(BENCHMARKS).exists() {
        let mut pip = pythons::clean_command(&python.executable);
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]);
        process::stdout_of(pip.arg(&folder).arg(PYPERFORMANCE))?;
    }
    ensure!(folder.join(BENCHMARKS).exists(), "{PYPERFORMANCE} has no {BENCHMARKS}");
    Ok(())
}
