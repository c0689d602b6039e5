//! Pythons as workers: pyperformance on our heap, and on CPython's own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use benches::protocol::Listed;
use testkit::pythons::{self, Python};
use xshell::cmd;

use super::{
    entrant::{Entrant, Role},
    schedule,
    worker::{Program, Worker},
};
use crate::workspace;

/// What is installed from the index of Python packages: scripts, which nothing compiles.
const PYPERFORMANCE: &str = "pyperformance==1.14.0";

/// Where its scripts are.
const BENCHMARKS: &str = "pyperformance/data-files/benchmarks";

/// The oldest version that is measured.
const OLDEST: (u8, u8) = (3, 11);

const OURS: Entrant = Entrant {
    name: "obmalloc in CPython",
    role: Role::Ours,
    worker: "python",
    feature: None,
    package: Some("obmalloc-cpython"),
    global: true,
};

const THEIRS: Entrant = Entrant {
    name: "CPython's own",
    role: Role::Peer,
    worker: "python",
    feature: None,
    package: None,
    global: true,
};

/// Two for each Python: with our library, and without. None if no benchmark's name holds `only`.
pub(super) fn workers(only: Option<&str>) -> Result<Vec<Worker>> {
    let pythons: Vec<_> = pythons::find().into_iter().filter(is_measured).collect();
    let first = pythons.first().context("no CPython of 3.11 or later was found")?;
    let benchmarks = &folder().join(BENCHMARKS);
    let mut theirs = Vec::new();
    for python in &pythons {
        let worker = worker(THEIRS, python, benchmarks, None)?;
        let named = |one: &Listed| schedule::is_named(one.group, &one.name, only);
        theirs.extend(worker.introduction.workloads.iter().any(named).then_some(worker));
    }
    if theirs.is_empty() {
        return Ok(theirs);
    }
    install(first)?;
    let library = workspace::build_library()?;
    let ours = pythons.iter().map(|python| worker(OURS, python, benchmarks, Some(&library)));
    let ours: Result<Vec<_>> = ours.collect();
    Ok(ours?.into_iter().chain(theirs).collect())
}

fn is_measured(python: &Python) -> bool {
    python.is_supported() && (python.version.0, python.version.1) >= OLDEST
}

fn worker(
    entrant: Entrant,
    python: &Python,
    benchmarks: &Path,
    library: Option<&Path>,
) -> Result<Worker> {
    // Strings hash alike in every run, so that all do the same work.
    let mut environment = vec![("PYTHONHASHSEED", "0".into())];
    environment.extend(library.map(|library| ("LD_PRELOAD", library.into())));
    let script = workspace::root().join("benches/python/worker.py");
    let arguments = vec![script.into(), benchmarks.into()];
    let program = Program { path: python.executable.clone(), arguments, environment };
    let mut worker = Worker::introduced(entrant, program)?;
    let versions = [&*worker.version, PYPERFORMANCE].into_iter();
    worker.version = versions.filter(|version| !version.is_empty()).collect::<Vec<_>>().join(", ");
    Ok(worker)
}

/// Where pyperformance is.
fn folder() -> PathBuf {
    workspace::target_dir().join(PYPERFORMANCE)
}

/// Has `python` install pyperformance, if it is not there.
fn install(python: &Python) -> Result<()> {
    let folder = folder();
    if !folder.join(BENCHMARKS).exists() {
        let shell = workspace::shell()?;
        let executable = &python.executable;
        cmd!(
            shell,
            "{executable} -m pip install --quiet --no-deps --target {folder} {PYPERFORMANCE}"
        )
        .run()
        .with_context(|| format!("{PYPERFORMANCE} cannot be installed"))?;
    }
    ensure!(folder.join(BENCHMARKS).exists(), "{PYPERFORMANCE} has no {BENCHMARKS}");
    Ok(())
}
