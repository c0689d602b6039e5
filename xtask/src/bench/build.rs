//! The workers, built one by one: a peer that does not build is left out, and named.

use std::{ffi::OsString, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use benches::contenders::LIBPYTHON;
use indicatif::{ProgressBar, ProgressStyle};
use testkit::pythons::{self, Python};

use super::{
    entrant::{Entrant, Role},
    worker::{Program, Worker},
};
use crate::{process, workspace};

/// Whether the workers have the programs in them, which take a minute each to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Programs {
    Included,
    Left,
}

/// The workers of all that can be built here, copied to `folder`: what cargo builds meanwhile is
/// none of this run's. Why a peer cannot be built is added to `left_out`.
pub(super) fn all(
    entrants: &[Entrant],
    programs: Programs,
    folder: &Path,
    left_out: &mut Vec<String>,
) -> Result<Vec<Worker>> {
    let style = ProgressStyle::with_template("building {pos}/{len} {msg} ({elapsed})")?;
    let bar = ProgressBar::new(entrants.len() as u64).with_style(style);
    let mut workers = Vec::new();
    for entrant in entrants {
        bar.set_message(entrant.name);
        match ready(entrant, programs, folder) {
            Ok(worker) => workers.push(worker),
            Err(error) if entrant.role == Role::Ours => return Err(error),
            Err(error) => left_out.push(format!("{}: {error:#}", entrant.name)),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(workers)
}

/// Builds a worker, copies it to `folder`, and asks it what it is.
fn ready(entrant: &Entrant, programs: Programs, folder: &Path) -> Result<Worker> {
    let program = format!("worker-{}", entrant.worker);
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(workspace::root());
    command.args(["build", "--quiet", "--release", "--package", "benches", "--bin", &program]);
    let programs = (programs == Programs::Included).then_some("programs");
    for feature in entrant.feature.into_iter().chain(programs) {
        command.args(["--features", feature]);
    }
    let finished = process::run(command, |_| ())?;
    ensure!(finished.success, "it does not build\n{}", finished.output);
    let path = folder.join(&program);
    fs::copy(workspace::target_dir().join("release").join(program), &path)?;
    let environment = if entrant.worker == "cpython" { libpython()? } else { Vec::new() };
    Worker::introduced(*entrant, Program { path, arguments: Vec::new(), environment })
}

/// What names the newest Python that has a shared library for this machine's C library, and where
/// that finds its modules.
fn libpython() -> Result<Vec<(&'static str, OsString)>> {
    let pythons = pythons::find();
    let shared = pythons.iter().filter(|python| {
        python.is_supported() && python.libpython.is_some() && !python.has_own_c_library()
    });
    let newest = shared.max_by_key(|python| python.version);
    let library = newest.and_then(|python| python.libpython.clone());
    let library = library.context("no CPython with a shared libpython was found")?;
    let home = newest.and_then(prefix).context("its executable lies in no folder")?;
    Ok(vec![(LIBPYTHON, library.into()), ("PYTHONHOME", home.into())])
}

fn prefix(python: &Python) -> Option<&Path> {
    python.executable.parent()?.parent()
}
