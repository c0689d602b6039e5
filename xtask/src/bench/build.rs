//! Builds the workers one by one.

use std::{ffi::OsString, fs, path::Path};

use anyhow::{Context, Result, ensure};
use benches::contenders::LIBPYTHON;
use testkit::pythons;

use super::{
    entrant::{Entrant, Role},
    worker::{Program, Worker},
};
use crate::{process, report, workspace};

/// Builds the workers of `entrants` and copies them to `folder`.
///
/// An allocator of another project that does not build is added to `left_out`.
///
/// # Errors
///
/// Fails if one of our own allocators does not build.
pub(super) fn all(
    entrants: &[Entrant],
    features: &[&str],
    folder: &Path,
    left_out: &mut Vec<String>,
) -> Result<Vec<Worker>> {
    let bar = report::progress_bar(entrants.len());
    let mut workers = Vec::new();
    for entrant in entrants {
        bar.set_message(format!("building {}", entrant.name));
        match ready(entrant, features, folder) {
            Ok(worker) => workers.push(worker),
            Err(error) if entrant.role == Role::Ours => return Err(error),
            Err(error) => left_out.push(format!("{}: {error:#}", entrant.name)),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(workers)
}

fn ready(entrant: &Entrant, features: &[&str], folder: &Path) -> Result<Worker> {
    let program = format!("worker-{}", entrant.worker);
    let mut command = workspace::cargo(&["build", "--quiet", "--release"]);
    command.args(["--package", "benches", "--bin", &program]);
    for feature in entrant.feature.iter().chain(features).copied() {
        command.args(["--features", feature]);
    }
    let finished = process::run(command, |_| ())?;
    ensure!(finished.success, "it does not build\n{}", finished.output);
    let path = folder.join(&program);
    fs::copy(workspace::target_dir().join("release").join(program), &path)?;
    let environment = if entrant.worker == "cpython" { libpython()? } else { Vec::new() };
    Worker::introduced(*entrant, Program { path, arguments: Vec::new(), environment })
}

/// Returns environment variables that name a shared libpython and its folder of modules.
fn libpython() -> Result<Vec<(&'static str, OsString)>> {
    let pythons = pythons::find();
    let fits = pythons.iter().filter(|python| python.is_supported() && !python.has_own_c_library());
    let shared = fits.filter_map(|python| Some((python.libpython.clone()?, python)));
    let newest = shared.max_by_key(|(_, python)| python.version);
    let (library, python) = newest.context("no CPython with a shared libpython was found")?;
    let home = python.executable.parent().and_then(Path::parent);
    let home = home.with_context(|| format!("{} is in no folder", python.executable.display()))?;
    Ok(vec![(LIBPYTHON, library.into()), ("PYTHONHOME", home.into())])
}
