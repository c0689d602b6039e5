//! Pythons as workers: pyperformance on our heap, and on CPython's own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use testkit::pythons::{self, Python};
use xshell::cmd;

use super::{
    entrant::{Entrant, Role},
    worker::{Program, Worker},
};
use crate::workspace;

/// What is installed from the index of Python packages: scripts, which nothing compiles.
const PYPERFORMANCE: &str = "pyperformance==1.14.0";

/// The oldest version that is measured.
const OLDEST: (u8, u8) = (3, 11);

const OURS: Entrant = Entrant {
    name: "obmalloc in CPython",
    role: Role::Ours,
    worker: "python",
    feature: None,
    package: Some("obmalloc-cpython"),
};

const THEIRS: Entrant = Entrant {
    name: "CPython's own",
    role: Role::Peer,
    worker: "python",
    feature: None,
    package: None,
};

/// Two for each Python: with our library, and without.
pub(super) fn workers() -> Result<Vec<Worker>> {
    let pythons: Vec<_> = pythons::find().into_iter().filter(is_measured).collect();
    let first = pythons.first().context("no CPython of 3.11 or later was found")?;
    let benchmarks = &installed(first)?;
    let library = workspace::build_library()?;
    let pythons = &pythons;
    let on = |entrant, library| {
        pythons.iter().map(move |python| worker(entrant, python, benchmarks, library))
    };
    on(OURS, Some(&*library)).chain(on(THEIRS, None)).collect()
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
    Worker::introduced(entrant, Program { path: python.executable.clone(), arguments, environment })
}

/// Where pyperformance's scripts are, after `python` has installed them.
fn installed(python: &Python) -> Result<PathBuf> {
    let folder = workspace::target_dir().join("pyperformance");
    let benchmarks = folder.join("pyperformance/data-files/benchmarks");
    if !benchmarks.exists() {
        let shell = workspace::shell()?;
        let executable = &python.executable;
        cmd!(
            shell,
            "{executable} -m pip install --quiet --no-deps --target {folder} {PYPERFORMANCE}"
        )
        .run()
        .with_context(|| format!("{PYPERFORMANCE} cannot be installed"))?;
    }
    ensure!(benchmarks.exists(), "{PYPERFORMANCE} has no {}", benchmarks.display());
    Ok(benchmarks)
}
