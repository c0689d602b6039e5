//! Locates the project's files, and starts cargo and git in the project's folder.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use obmalloc_cli::libraries::Libraries;

use crate::process;

pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Runs git in the project's folder, even if the folder belongs to another user.
pub(crate) fn git(arguments: &[&str]) -> Result<String> {
    let mut git = Command::new("git");
    process::stdout_of(git.current_dir(root()).args(["-c", "safe.directory=*"]).args(arguments))
}

/// Returns the relative path of every file that git tracks or would add.
pub(crate) fn files() -> Result<Vec<String>> {
    let files = git(&["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
    Ok(files.split_terminator('\0').map(str::to_owned).collect())
}

pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args(arguments);
    cargo
}

/// Builds `package` and returns the path of its product `file`.
pub(crate) fn build(package: &str, profile: &str, file: &str) -> Result<PathBuf> {
    let folder = if profile == "dev" { "debug" } else { profile };
    let path = target_dir().join(folder).join(file);
    let mut command = cargo(&["build", "--package", package, "--profile", profile]);
    command.args(path.exists().then_some("--quiet"));
    ensure!(command.status()?.success(), "cannot build the package {package}");
    path.canonicalize().with_context(|| format!("cargo built no {}", path.display()))
}

pub(crate) fn build_library() -> Result<PathBuf> {
    build("obmalloc-cpython", "release", "libobmalloc_cpython.so")
}

pub(crate) fn build_malloc() -> Result<PathBuf> {
    build("obmalloc-malloc", "release", "libobmalloc_malloc.so")
}

/// Builds both libraries.
pub(crate) fn build_libraries() -> Result<Libraries> {
    Ok(Libraries::new(build_library()?, Some(build_malloc()?)))
}
