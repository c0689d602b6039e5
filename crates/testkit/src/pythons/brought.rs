//! The Pythons that `cargo xtask pythons` has downloaded into a folder of the project.
//!
//! ```text
//!   target/pythons/root       the packages, unpacked:
//!     ├─ usr/bin               python3.15, python3.14, python3.14-dbg
//!     └─ lib/x86_64-linux-gnu  ld-linux-x86-64.so.2, libc.so.6, libpython3.15.so.1.0
//! ```
//!
//! The Pythons come from packages of Debian sid. We only unpack these packages, and the package of
//! Debian's C library, into this folder. Nothing is installed on the machine.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The environment variable that names the folder of downloaded Pythons. With it, several checkouts
/// of the project can share one folder.
const FOLDER: &str = "OBMALLOC_PYTHONS_FOLDER";

const RELEASES: [&str; 2] = ["python3.14", "python3.15"];

const DEBUG_BUILD: &str = "python3.14-dbg";

/// Returns the folder of downloaded Pythons: the folder that `OBMALLOC_PYTHONS_FOLDER` names, or,
/// if the variable is not set, the folder `pythons` in cargo's target folder.
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

/// Returns the folder into which the Debian packages are unpacked.
fn root() -> PathBuf {
    folder().join("root")
}

/// Returns the paths of the downloaded release builds. The files exist only if
/// `cargo xtask pythons` has run.
pub fn releases() -> [PathBuf; 2] {
    RELEASES.map(executable)
}

/// Returns the paths of the downloaded release builds and of the debug build. The files exist only
/// if `cargo xtask pythons` has run.
pub fn executables() -> [PathBuf; 3] {
    let [one, other] = releases();
    [one, other, executable(DEBUG_BUILD)]
}

fn executable(name: &str) -> PathBuf {
    root().join("usr/bin").join(name)
}

/// Returns true if `path` lies in the folder of downloaded Pythons.
pub(super) fn has(path: &Path) -> bool {
    root().canonicalize().is_ok_and(|root| path.starts_with(root))
}
