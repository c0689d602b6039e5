//! Builds the wheel: zig links the libraries and the program to an old glibc, and maturin packs them.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use obmalloc_cli::{command_line, manual};

use super::tools::{Tools, folder};
use crate::{header, process, workspace};

/// Red Hat 7, Debian 8 and Ubuntu 14.04 have glibc 2.17 or later.
const TAG: &str = "manylinux_2_17_x86_64";

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The libraries as cargo builds them, and their names in the wheel.
const LIBRARIES: [(&str, &str); 2] = [
    ("libobmalloc_cpython.so", "libobmalloc_cpython.so"),
    ("libobmalloc_malloc.so", "libobmalloc.so"),
];

/// What the wheel must contain.
const CONTENTS: [&str; 7] = [
    "obmalloc/lib/libobmalloc_cpython.so",
    "obmalloc/lib/libobmalloc.so",
    "obmalloc/include/obmalloc.h",
    "obmalloc/__main__.py",
    "scripts/obmalloc",
    "share/man/man1/obmalloc-run.1",
    "share/bash-completion/completions/obmalloc",
];

/// Builds the wheel and returns its path.
///
/// # Errors
///
/// Fails if something cannot be built, or if the wheel lacks a file or needs a newer glibc.
pub(super) fn wheel(tools: &Tools) -> Result<PathBuf> {
    let stage = stage(tools)?;
    let dist = folder().join("dist");
    let _ = fs::remove_dir_all(&dist);
    let mut maturin = tools.command("maturin")?;
    // Zig's settings differ between the two tools, so each tool would rebuild what the other one
    // has built.
    maturin.env("CARGO_TARGET_DIR", folder().join("program"));
    maturin.current_dir(&stage).args(["build", "--quiet", "--release", "--zig"]);
    maturin.args(["--target", TARGET, "--compatibility", "manylinux_2_17", "--out"]).arg(&dist);
    process::stdout_of(&mut maturin)?;
    let mut wheels = fs::read_dir(&dist)?;
    let wheel = wheels.next().context("maturin built no wheel")??.path();
    check(tools, &wheel)?;
    Ok(wheel)
}

/// Copies the Python package to a new folder, and puts the built files in place.
fn stage(tools: &Tools) -> Result<PathBuf> {
    let (stage, root) = (folder().join("stage"), workspace::root());
    let _ = fs::remove_dir_all(&stage);
    copy(&root.join("python/obmalloc"), &stage)?;
    symlink(root.join("crates/cli").canonicalize()?, stage.join("cli"))?;
    let package = stage.join("src/obmalloc");
    for inner in ["lib", "include"] {
        fs::create_dir(package.join(inner))?;
    }
    for (built, name) in libraries(tools)? {
        let to = package.join("lib").join(name);
        fs::copy(&built, &to).with_context(|| built.display().to_string())?;
        process::stdout_of(Command::new("strip").arg("--strip-unneeded").arg(&to))?;
    }
    fs::copy(header::path(), package.join("include/obmalloc.h"))?;
    for license in ["LICENSE-MIT", "LICENSE-APACHE"] {
        fs::copy(root.join(license), stage.join(license))?;
    }
    let share = stage.join("data/data/share");
    manual::write_pages(&share.join("man/man1"), command_line::command())?;
    manual::write_completions(&share, command_line::command())?;
    Ok(stage)
}

fn libraries(tools: &Tools) -> Result<Vec<(PathBuf, &'static str)>> {
    let mut zig = tools.command("cargo-zigbuild")?;
    zig.current_dir(workspace::root()).args(["zigbuild", "--quiet", "--release"]);
    zig.args(["-p", "obmalloc-cpython", "-p", "obmalloc-malloc"]);
    zig.args(["--target", &format!("{TARGET}.2.17")]);
    process::stdout_of(&mut zig)?;
    let release = folder().join("build").join(TARGET).join("release");
    Ok(LIBRARIES.map(|(built, name)| (release.join(built), name)).to_vec())
}

/// Copies a folder and everything in it.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_name() == "__pycache__" {
        } else if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Checks the contents of the wheel, and that its programs need no newer glibc than its tag
/// promises.
fn check(tools: &Tools, wheel: &Path) -> Result<()> {
    let mut list = tools.command("python")?;
    let list = process::stdout_of(list.args(["-m", "zipfile", "-l"]).arg(wheel))?;
    for part in CONTENTS {
        ensure!(list.contains(part), "{} has no {part}:\n{list}", wheel.display());
    }
    let seen = process::stdout_of(tools.command("auditwheel")?.arg("show").arg(wheel))?;
    let text = seen.split_whitespace().collect::<Vec<_>>().join(" ");
    let is_ours = text.contains(&format!("consistent with the following platform tag: \"{TAG}\""));
    ensure!(is_ours, "auditwheel does not find {TAG}:\n{seen}");
    let size = fs::metadata(wheel)?.len();
    println!("      {TAG}, {:.2} MB", size as f64 / 1e6);
    Ok(())
}
