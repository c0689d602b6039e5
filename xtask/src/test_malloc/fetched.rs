//! Programs that are not installed on this machine. Their packages are unpacked but not installed.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{apt::Apt, workspace};

const PACKAGES: [&str; 4] = ["redis-server", "redis-tools", "ruby", "sqlite3"];

/// Returns true if `program` is on the search path, or among the fetched programs.
pub(super) fn has(program: &str) -> bool {
    is_installed(program) || bin().join(program).exists()
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Fetches the packages, unless that happened before.
pub(super) fn bring() -> Result<()> {
    let (finished, packages) = (folder().join("finished"), PACKAGES.join(" "));
    if fs::read_to_string(&finished).is_ok_and(|fetched| fetched == packages) {
        return Ok(());
    }
    // The libraries must match the installed C library, which the programs use.
    let text = fs::read_to_string("/etc/os-release").context("/etc/os-release")?;
    let release = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let apt = Apt::new(&folder(), release.context("this system has no name")?)?;
    apt.download(&PACKAGES)?;
    apt.unpack(|package| !package.starts_with("libc6_") && !package.starts_with("libc-bin_"))?;
    fs::remove_dir_all(&apt.scratch)?;
    Ok(fs::write(finished, packages)?)
}

/// Makes `command` find the fetched programs, if they are needed.
pub(super) fn use_in(command: &mut Command, needs: &[&str]) {
    if needs.iter().all(|program| is_installed(program)) {
        return;
    }
    let usr = folder().join("root/usr");
    let joined = |paths: &[PathBuf]| env::join_paths(paths).unwrap_or_default();
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = [bin()].into_iter().chain(env::split_paths(&path)).collect();
    command.env("PATH", joined(&folders));
    let libraries = usr.join("lib/x86_64-linux-gnu");
    command.env("LD_LIBRARY_PATH", &libraries);
    let versions = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let ruby = [versions(&usr.join("lib/ruby")), versions(&libraries.join("ruby"))].concat();
    command.env("RUBYLIB", joined(&ruby) as OsString);
}

fn folder() -> PathBuf {
    let target = workspace::target_dir();
    target.canonicalize().unwrap_or(target).join("malloc-programs")
}

fn bin() -> PathBuf {
    folder().join("root/usr/bin")
}
