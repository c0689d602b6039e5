//! Where things are, and how the library for CPython is built.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

/// The project's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A shell in the project's folder.
pub(crate) fn shell() -> Result<Shell> {
    let shell = Shell::new()?;
    shell.change_dir(root());
    Ok(shell)
}

/// The folder that cargo builds into.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Builds the shared library for CPython, and returns its path.
pub(crate) fn build_library() -> Result<PathBuf> {
    let library = target_dir().join("release/libobmalloc_cpython.so");
    if !library.exists() {
        eprintln!("building {}: a minute or two, the first time", library.display());
    }
    let shell = shell()?;
    cmd!(shell, "cargo build --quiet --release --package obmalloc-cpython").quiet().run()?;
    library.canonicalize().with_context(|| format!("cargo built no {}", library.display()))
}
