//! Packs the crates as for a registry, and builds a program outside of the workspace with them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{process, tally::Tally, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {}

/// The crates in an order in which a registry accepts them: each one after those that it needs.
const CRATES: [&str; 12] = [
    "obmalloc-sync",
    "obmalloc-status",
    "obmalloc-raw-mem",
    "obmalloc-host",
    "obmalloc",
    "obmalloc-thread-heap",
    "obmalloc-object-cache",
    "obmalloc-allocator-api",
    "obmalloc-global-alloc",
    "obmalloc-malloc",
    "obmalloc-cpython",
    "obmalloc-cli",
];

/// Fields that a crate's page at a registry shows.
const FIELDS: [&str; 5] = ["description", "license", "readme", "keywords", "rust-version"];

/// A program that uses one crate of each kind.
const PROGRAM: &str = "
#[global_allocator]
static GLOBAL: global_alloc::ObMalloc = global_alloc::ObMalloc::new();

fn main() {
    use obmalloc::Geometry;
    let words: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    println!(\"{} {}\", words.concat().len(), obmalloc::Native::SIZES.small_threshold);
}
";

pub(crate) fn run(_: Args) -> Result<()> {
    let tally = pack_and_use()?;
    println!("{tally}");
    Ok(())
}

/// Packs every crate, and then builds and runs a program that depends on the packed crates only.
///
/// # Errors
///
/// Fails if a crate cannot be packed, lacks a field, or does not build outside of the workspace.
pub(crate) fn pack_and_use() -> Result<Tally> {
    let folder = workspace::target_dir().join("packed");
    let _ = fs::remove_dir_all(&folder);
    let mut package = workspace::cargo(&["package", "--quiet", "--no-verify", "--allow-dirty"]);
    package.args(CRATES.iter().flat_map(|name| ["-p", name]));
    process::stdout_of(package.arg("--target-dir").arg(&folder))?;
    for name in CRATES {
        unpack(&folder, name)?;
    }
    use_crates(&folder)?;
    Ok(Tally::of(CRATES.len() + 1, 0))
}

fn unpack(folder: &Path, name: &str) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let packed = folder.join(format!("package/{name}-{version}.crate"));
    let mut tar = Command::new("tar");
    process::stdout_of(tar.arg("-xzf").arg(&packed).arg("-C").arg(folder))?;
    let unpacked = unpacked(folder, name);
    let manifest = fs::read_to_string(unpacked.join("Cargo.toml"))?;
    for field in FIELDS {
        let is_there = manifest.lines().any(|line| line.starts_with(&format!("{field} = ")));
        ensure!(is_there, "the packed {name} has no {field}");
    }
    // Otherwise cargo looks for a workspace in the folders above, and finds ours.
    fs::write(unpacked.join("Cargo.toml"), manifest + "\n[workspace]\n")?;
    Ok(())
}

fn unpacked(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}-{}", env!("CARGO_PKG_VERSION")))
}

/// Builds a program in a folder of the system, where cargo finds no workspace and no settings.
fn use_crates(folder: &Path) -> Result<()> {
    let outside = tempfile::tempdir().context("cannot create a folder outside of the workspace")?;
    let version = env!("CARGO_PKG_VERSION");
    let mut manifest = "[package]\nname = \"user\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
        [dependencies]\n"
        .to_owned();
    for name in CRATES {
        // Cargo links no shared library, but builds what the library depends on.
        manifest += &format!("{name} = \"{version}\"\n");
    }
    manifest += "[patch.crates-io]\n";
    for name in CRATES {
        manifest += &format!("{name} = {{ path = {:?} }}\n", unpacked(folder, name));
    }
    fs::create_dir(outside.path().join("src"))?;
    fs::write(outside.path().join("Cargo.toml"), manifest)?;
    fs::write(outside.path().join("src/main.rs"), PROGRAM)?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(outside.path()).args(["run", "--quiet", "--target-dir"]);
    let printed = process::stdout_of(cargo.arg(folder.join("target")))?;
    ensure!(printed == "2890 512\n", "the program outside of the workspace printed {printed:?}");
    Ok(())
}
