//! The Pythons that `cargo xtask pythons` downloads.
//!
//! The packages come from Debian sid, together with a matching C library. We only unpack them and
//! never install them.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

const FOLDER: &str = "OBMALLOC_PYTHONS_FOLDER";

const RELEASES: [&str; 2] = ["python3.14", "python3.15"];

const DEBUG_BUILD: &str = "python3.14-dbg";

/// Returns the folder that `OBMALLOC_PYTHONS_FOLDER` names, or `pythons` in the target folder.
pub fn folder() -> PathBuf {
    let named = |name: &str| env::var_os(name).filter(|value: &OsString| !value.is_empty());
    if let Some(folder) = named(FOLDER) {
        return PathBuf::from(folder);
    }
    let project = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let target = named("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let target = project.join(target);
    target.canonicalize().unwrap_or(target).join("pythons")
}

fn root() -> PathBuf {
    folder().join("root")
}

/// Returns the paths of the downloaded release builds. The files may not exist.
pub fn releases() -> [PathBuf; 2] {
    RELEASES.map(executable)
}

/// Returns the paths of the downloaded release and debug builds. The files may not exist.
pub fn executables() -> [PathBuf; 3] {
    let [one, other] = releases();
    [one, other, executable(DEBUG_BUILD)]
}

fn executable(name: &str) -> PathBuf {
    root().join("usr/bin").join(name)
}

pub(super) fn has(path: &Path) -> bool {
    root().canonicalize().is_ok_and(|root| path.starts_with(root))
}
