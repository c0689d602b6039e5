//! The tools that build a wheel, in a virtual environment below the target folder.

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
const PACKAGES: [&str; 4] =
    ["maturin==1.16.0", "ziglang==0.17.1", "cargo-zigbuild==0.24.1", "auditwheel==6.8.2"];

/// The tools need at least this Python.
const OLDEST: (u8, u8) = (3, 10);

pub(super) struct Tools {
    bin: PathBuf,
}

impl Tools {
    /// Installs the tools, unless they are there.
    ///
    /// # Errors
    ///
    /// Fails if there is no Python that is new enough, or if a package cannot be fetched.
    pub(super) fn install() -> Result<Self> {
        let folder = folder().join("tools");
        let (bin, done) = (folder.join("bin"), folder.join("packages"));
        let packages = PACKAGES.join("\n");
        if fs::read_to_string(&done).is_ok_and(|installed| installed == packages) {
            return Ok(Self { bin });
        }
        create_environment(&python()?, &folder)?;
        install(&bin.join("python"), &PACKAGES)?;
        fs::write(&done, packages)?;
        Ok(Self { bin })
    }

    /// Returns a command that finds the tools on its `PATH`.
    pub(super) fn command(&self, tool: &str) -> Result<Command> {
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

fn python() -> Result<Python> {
    let is_new = |python: &Python| {
        python.is_supported()
            && !python.has_own_c_library()
            && (python.version.0, python.version.1) >= OLDEST
    };
    let found = pythons::find().into_iter().filter(is_new);
    found.max_by_key(|python| python.version).context("there is no CPython 3.10 or later")
}

/// Creates an empty virtual environment with pip. Removes an old one.
pub(super) fn create_environment(python: &Python, folder: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    let mut venv = pythons::clean_command(&python.executable);
    process::stdout_of(venv.args(["-m", "venv"]).arg(folder)).map(drop)
}

/// Installs `packages` into the environment of `python`.
pub(super) fn install(python: &Path, packages: &[impl Into<OsString> + Clone]) -> Result<()> {
    let mut pip = pythons::clean_command(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    pip.args(packages.iter().cloned().map(Into::into));
    process::stdout_of(&mut pip).map(drop)
}
