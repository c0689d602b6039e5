//! Installs the wheel into environments, and runs programs there.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use testkit::pythons::{self, Python};

use super::tools::{Environment, folder};
use crate::{parallel::in_parallel, process, tally::Tally, workspace};

/// Servers and tools that run on the heap.
const PROGRAMS: [&str; 4] = ["gunicorn", "celery", "ipykernel", "pytest"];

const INSTALLERS: [&str; 2] = ["pipx", "uv"];

/// Most of the time, the tests wait.
const THREADS: usize = 3;

/// Tests the wheel, servers and tools with every supported Python, and installers with the newest.
pub(super) fn every_python(wheel: &Path) -> Result<Tally> {
    let mut pythons = pythons::find();
    pythons.retain(Python::is_supported);
    let installed = pythons.iter().filter(|python| !python.has_own_c_library());
    let newest = installed.max_by_key(|python| python.version).cloned();
    let newest = newest.context("there is no supported CPython for the wheel")?;
    let numbered = pythons.into_iter().enumerate().collect();
    let trial = |_: &usize, (number, python): (usize, Python)| {
        try_python(&python, &folder().join(format!("venvs/{number}")), wheel)
    };
    let tallies = in_parallel(THREADS, numbered, Ok, trial)?;
    Ok(tallies.into_iter().sum::<Tally>() + test_places(&newest, wheel)?)
}

/// Tests the wheel in a new environment of `python` in `folder`.
fn try_python(python: &Python, folder: &Path, wheel: &Path) -> Result<Tally> {
    let name = python.name();
    let environment = match Environment::create(python, folder) {
        Ok(environment) => environment,
        Err(error) => {
            let reason = format_args!("THE WHEEL WAS NOT TESTED: {name} makes no venv: {error:#}");
            return Ok(Tally::skipped(reason));
        }
    };
    environment.install(&[wheel])?;
    let tally = test(&environment.python, "installed.py", &[])?;
    println!("      the wheel in an environment of {name}: {tally}");
    let mut packages: Vec<OsString> = PROGRAMS.map(OsString::from).to_vec();
    packages.push(copy_of_plugin(folder)?.into());
    if let Err(error) = environment.install(&packages) {
        let reason = format_args!("SERVERS WERE NOT TESTED with {name}: {error:#}");
        return Ok(tally + Tally::skipped(reason));
    }
    let programs = test(&environment.python, "programs.py", &[])?;
    println!("      gunicorn, celery, a Jupyter kernel and pytest with {name}: {programs}");
    Ok(tally + programs)
}

/// Copies the pytest plugin to `folder`, because pip leaves its build folder in the source.
fn copy_of_plugin(folder: &Path) -> Result<PathBuf> {
    let copy = folder.join("pytest-obmalloc");
    super::build::copy(&workspace::root().join("python/pytest-obmalloc"), &copy)?;
    Ok(copy)
}

fn test_places(python: &Python, wheel: &Path) -> Result<Tally> {
    println!("      venv with a space, --user, --target, pipx and uv");
    let environment = Environment::create(python, &folder().join("venvs/installers"))?;
    match environment.install(&INSTALLERS) {
        Ok(()) => test(&environment.python, "places.py", &[wheel, &environment.python]),
        Err(error) => Ok(Tally::skipped(format_args!("PLACES WERE NOT TESTED: {error:#}"))),
    }
}

/// Runs a program of `python/tests`, which prints a line of results like that of cargo.
fn test(python: &Path, name: &str, args: &[&Path]) -> Result<Tally> {
    let mut command: Command = pythons::clean_command(python);
    command.arg(workspace::root().join("python/tests").canonicalize()?.join(name)).args(args);
    command.env("PYTHONDONTWRITEBYTECODE", "1").env_remove("VIRTUAL_ENV");
    let finished = process::run(command, |_| ())?;
    let tally = Tally::of_output(&finished.output);
    if !finished.success {
        println!("{}", finished.output);
    }
    Ok(if tally == Tally::default() { Tally::one(false) } else { tally })
}
