//! Installs the wheel into environments, and runs programs there.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use testkit::pythons::{self, Python};

use super::tools::{create_environment, folder, install};
use crate::{process, tally::Tally, workspace};

/// Servers and tools that run on the heap.
const PROGRAMS: [&str; 3] = ["gunicorn", "ipykernel", "pytest"];

const INSTALLERS: [&str; 2] = ["pipx", "uv"];

/// Tests the wheel with every supported Python, and the servers and installers with the newest one.
pub(super) fn every_python(wheel: &Path) -> Result<Tally> {
    // A Python that was unpacked without being installed cannot create environments.
    let can_install = |python: &Python| python.is_supported() && !python.has_own_c_library();
    let pythons: Vec<_> = pythons::find().into_iter().filter(can_install).collect();
    let mut tally = Tally::default();
    for python in &pythons {
        println!("      the wheel in an environment of {}", python.name());
        match environment(python, wheel) {
            Ok(bin) => tally = tally + test(&bin, "installed.py", &[])?,
            Err(error) => {
                let name = python.name();
                tally = tally + Tally::skipped(format_args!("{name} makes no venv: {error:#}"));
            }
        }
    }
    let newest = pythons.iter().max_by_key(|python| python.version);
    let newest = newest.context("there is no supported CPython for the wheel")?;
    Ok(tally + test_programs(newest, wheel)? + test_places(newest, wheel)?)
}

/// Creates an environment with the wheel, and returns its Python.
fn environment(python: &Python, wheel: &Path) -> Result<PathBuf> {
    let (major, minor, micro) = python.version;
    let folder = folder().join("venvs").join(format!("{major}.{minor}.{micro}"));
    create_environment(python, &folder)?;
    let inner = folder.join("bin/python");
    install(&inner, &[wheel])?;
    Ok(inner)
}

fn test_programs(python: &Python, wheel: &Path) -> Result<Tally> {
    println!("      gunicorn, a Jupyter kernel and pytest");
    let inner = environment(python, wheel)?;
    // pip leaves its build folder in the source, so it gets a copy.
    let source = folder().join("pytest-obmalloc");
    let _ = fs::remove_dir_all(&source);
    super::build::copy(&workspace::root().join("python/pytest-obmalloc"), &source)?;
    let mut packages: Vec<OsString> = PROGRAMS.map(OsString::from).to_vec();
    packages.push(source.into());
    match install(&inner, &packages) {
        Ok(()) => test(&inner, "programs.py", &[]),
        Err(error) => Ok(Tally::skipped(format_args!("SERVERS WERE NOT TESTED: {error:#}"))),
    }
}

fn test_places(python: &Python, wheel: &Path) -> Result<Tally> {
    println!("      venv with a space, --user, --target, pipx and uv");
    let folder = folder().join("venvs/installers");
    create_environment(python, &folder)?;
    let inner = folder.join("bin/python");
    match install(&inner, &INSTALLERS) {
        Ok(()) => test(&inner, "places.py", &[wheel, &inner]),
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
