//! Builds other allocators as shared libraries that can be preloaded.
//!
//! The sources are those of the crates that the workers link. The libraries stay in the target
//! folder, and their file names contain the version of the crate, so each version is built only
//! once.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{process, workspace};

/// An allocator that can be built as a shared library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    MimallocV2,
    MimallocV3,
    Jemalloc,
}

impl Peer {
    /// Returns the crate that contains the allocator's sources.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::MimallocV2 | Self::MimallocV3 => "libmimalloc-sys",
            Self::Jemalloc => "tikv-jemalloc-sys",
        }
    }

    /// Builds the library, unless it exists, and returns its path.
    ///
    /// # Errors
    ///
    /// Fails if the sources cannot be fetched, or if the system's C compiler does not compile them.
    pub(crate) fn library(self) -> Result<PathBuf> {
        let source = source_of(self.package())?;
        let folder = workspace::target_dir().join("peers");
        fs::create_dir_all(&folder)?;
        let version = source.file_name().context("a crate has a folder")?.to_string_lossy();
        let path = folder.join(format!("{self:?}-{version}.so"));
        if !path.exists() {
            // Another process may use the library as soon as it has its final name.
            let unfinished = path.with_extension("unfinished");
            match self {
                Self::MimallocV2 => mimalloc(&source.join("c_src/mimalloc/v2"), &unfinished)?,
                Self::MimallocV3 => mimalloc(&source.join("c_src/mimalloc/v3"), &unfinished)?,
                Self::Jemalloc => jemalloc(&source, &unfinished)?,
            }
            fs::rename(unfinished, &path)?;
        }
        path.canonicalize().with_context(|| format!("{} was not built", path.display()))
    }
}

/// The options that the library's own build uses for a release.
const MIMALLOC: [&str; 12] = [
    "-O3",
    "-DNDEBUG",
    "-DMI_BUILD_RELEASE",
    "-DMI_DEBUG=0",
    "-DMI_MALLOC_OVERRIDE",
    "-DMI_SHARED_LIB",
    "-DMI_SHARED_LIB_EXPORT",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-ftls-model=initial-exec",
    "-fno-builtin-malloc",
];

fn mimalloc(source: &Path, library: &Path) -> Result<()> {
    let mut cc = Command::new("cc");
    cc.args(MIMALLOC).arg("-I").arg(source.join("include")).arg(source.join("src/static.c"));
    process::stdout_of(cc.arg("-o").arg(library).arg("-pthread")).map(|_| ())
}

fn jemalloc(source: &Path, library: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let run = |program: &str, arguments: &[&str]| {
        process::stdout_of(Command::new(program).current_dir(folder).args(arguments))
    };
    let jemalloc = source.join("jemalloc").to_string_lossy().into_owned();
    run("cp", &["-r", &format!("{jemalloc}/."), "."])?;
    fs::copy(source.join("configure/configure"), folder.join("configure"))?;
    let name = source.file_name().unwrap_or_default().to_string_lossy();
    let version = name.split_once('+').with_context(|| format!("{name} names no version"))?.1;
    let version = format!("--with-version={version}");
    run("sh", &["configure", &version, "--disable-cxx", "--enable-doc=no", "--enable-static=no"])?;
    run("make", &["--silent", "build_lib_shared"])?;
    fs::copy(folder.join("lib/libjemalloc.so.2"), library)?;
    Ok(())
}

/// Returns the folder with the sources of `package`, which cargo fetches if necessary.
fn source_of(package: &str) -> Result<PathBuf> {
    let mut cargo = workspace::cargo(&["metadata", "--format-version", "1", "--all-features"]);
    let metadata: Value = serde_json::from_str(&process::stdout_of(&mut cargo)?)?;
    let packages = metadata["packages"].as_array().context("cargo describes packages")?;
    let described = packages.iter().find(|one| one["name"] == package);
    let manifest = described.and_then(|one| one["manifest_path"].as_str());
    let folder = manifest.and_then(|path| Path::new(path).parent());
    let folder = folder.with_context(|| format!("no package depends on {package}"))?;
    ensure!(folder.exists(), "cargo did not fetch {package}");
    Ok(folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_built_replaces_malloc() {
        let library = Peer::MimallocV2.library().unwrap();
        let symbols = process::stdout_of(Command::new("nm").arg("-D").arg(library)).unwrap();
        for name in ["malloc", "free", "calloc", "realloc", "posix_memalign", "mi_version"] {
            assert!(symbols.lines().any(|line| line.ends_with(&format!(" T {name}"))), "{name}");
        }
    }

    #[test]
    fn a_package_that_nothing_depends_on_has_no_source() {
        assert!(source_of("no-such-package").is_err());
    }
}
