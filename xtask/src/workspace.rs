//! Locates the project's files, and starts cargo and git in the project's folder.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::process;

/// Returns the project's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Runs git with `arguments` in the project's folder, and returns the text that git prints. By
/// default, git refuses to work in a folder that belongs to another user, as the folder may in a
/// container. We therefore declare every folder as safe.
pub(crate) fn git(arguments: &[&str]) -> Result<String> {
    let mut git = Command::new("git");
    process::stdout_of(git.current_dir(root()).args(["-c", "safe.directory=*"]).args(arguments))
}

/// Returns the path, relative to the project's folder, of every file that git tracks or would add.
/// The list still contains a deleted file until the deletion is committed.
pub(crate) fn files() -> Result<Vec<String>> {
    let files = git(&["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
    Ok(files.split_terminator('\0').map(str::to_owned).collect())
}

/// Returns the folder into which cargo builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Returns a command that runs cargo with `arguments` in the project's folder.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args(arguments);
    cargo
}

/// Builds `package` in the profile `dev` or `release`, and returns the path of `file`, which the
/// build produces. Cargo shows its progress only if `file` does not exist yet.
pub(crate) fn build(package: &str, profile: &str, file: &str) -> Result<PathBuf> {
    let folder = if profile == "dev" { "debug" } else { profile };
    let path = target_dir().join(folder).join(file);
    let mut command = cargo(&["build", "--package", package, "--profile", profile]);
    command.args(path.exists().then_some("--quiet"));
    ensure!(command.status()?.success(), "cannot build the package {package}");
    path.canonicalize().with_context(|| format!("cargo built no {}", path.display()))
}

/// Builds the shared library for CPython, and returns its path.
pub(crate) fn build_library() -> Result<PathBuf> {
    build("obmalloc-cpython", "release", "libobmalloc_cpython.so")
}
