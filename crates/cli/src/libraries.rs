//! Finds the shared libraries, relative to this program.
//!
//! | how obmalloc was installed | the program | the libraries |
//! | --- | --- | --- |
//! | `pip install` (also `--user`, pipx and uv) | `bin/` | `lib/python3.X/site-packages/obmalloc/lib/` |
//! | `pip install --target` | `bin/` | `obmalloc/lib/` |
//! | with a prefix | `bin/` | `lib/` or `lib/obmalloc/` |
//! | built by cargo | `target/release/` | the same folder |
//!
//! If `OBMALLOC_LIBDIR` is set, it names the folder of the libraries, and we do not search.

#![forbid(unsafe_code)]

use std::{
    env,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    executable,
    failure::{Attempt, Failure, Result},
};

/// The variable that names the folder of the libraries.
pub const VARIABLE: &str = "OBMALLOC_LIBDIR";

const CPYTHON: &str = "libobmalloc_cpython.so";

/// The names of the malloc library: as installed, and as built by cargo.
const MALLOC: [&str; 2] = ["libobmalloc.so", "libobmalloc_malloc.so"];

/// The names of the folder for packages: in most Pythons, and in Debian's Pythons.
const PACKAGES: [&str; 2] = ["site-packages", "dist-packages"];

/// The shared libraries of obmalloc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Libraries {
    cpython: PathBuf,
    malloc: Option<PathBuf>,
}

impl Libraries {
    /// Creates a value from the paths of libraries that exist.
    pub fn new(cpython: PathBuf, malloc: Option<PathBuf>) -> Self {
        Self { cpython, malloc }
    }

    /// Finds the libraries that belong to the running program.
    ///
    /// # Errors
    ///
    /// Fails if no folder contains a library, or if this user cannot load it.
    pub fn find() -> Result<Self> {
        let folders = match env::var_os(VARIABLE).filter(|folder| !folder.is_empty()) {
            Some(folder) => {
                vec![std::path::absolute(folder).attempt(|| format!("cannot resolve {VARIABLE}"))?]
            }
            None => {
                let program = env::current_exe().attempt(|| "cannot find this program's path")?;
                folders(program.parent().unwrap_or(Path::new("/")))
            }
        };
        Self::find_in(&folders)
    }

    fn find_in(folders: &[PathBuf]) -> Result<Self> {
        // If we may not search a folder, we try to open the library anyway, because the error then
        // states the reason.
        let may_exist = |folder: &&PathBuf| match folder.join(CPYTHON).try_exists() {
            Ok(exists) => exists,
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        };
        let Some(folder) = folders.iter().find(may_exist) else {
            return Err(not_found(folders));
        };
        let cpython = folder.join(CPYTHON);
        require_loadable(&cpython)?;
        let malloc = MALLOC.map(|name| folder.join(name)).into_iter().find(|path| path.exists());
        Ok(Self { cpython, malloc })
    }

    /// Returns the library for CPython.
    pub fn cpython(&self) -> &Path {
        &self.cpython
    }

    /// Returns the library that replaces malloc.
    ///
    /// # Errors
    ///
    /// Fails if this library is not installed or cannot be loaded.
    pub fn malloc(&self) -> Result<&Path> {
        let malloc = self.malloc.as_deref().ok_or_else(|| {
            Failure::new("cannot find the malloc library").because(format!(
                "{} is not beside {}",
                MALLOC[0],
                self.cpython.display()
            ))
        })?;
        require_loadable(malloc)?;
        Ok(malloc)
    }
}

/// Fails if `library` cannot be loaded. The loader would then start the program without the heap.
fn require_loadable(library: &Path) -> Result<()> {
    executable::require_library(library).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::InvalidData => "pip install --force-reinstall obmalloc",
            _ => "install obmalloc where this user may read it, such as in the user's own venv",
        };
        Failure::new(format!("cannot read {}", library.display())).because(error).remedy(remedy)
    })
}

fn not_found(folders: &[PathBuf]) -> Failure {
    let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
    Failure::new(format!("cannot find {CPYTHON}"))
        .because(format!("it is in none of {}", folders.join(", ")))
        .remedy(format!("pip install obmalloc, or name its folder in {VARIABLE}"))
}

/// Returns the folders that can contain the libraries of a program in the folder `bin`.
fn folders(bin: &Path) -> Vec<PathBuf> {
    let mut folders = vec![bin.to_owned()];
    if let Some(prefix) = bin.parent() {
        for lib in ["lib", "lib64", "local/lib"] {
            folders.extend(packages(&prefix.join(lib)));
        }
        folders.extend(["obmalloc/lib", "lib", "lib/obmalloc"].map(|folder| prefix.join(folder)));
    }
    folders
}

/// Returns the folder `obmalloc/lib` in the packages of each Python below `lib`, newest Python
/// first.
fn packages(lib: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(lib).into_iter().flatten().flatten();
    let mut pythons: Vec<_> =
        entries.filter_map(|entry| Some((minor(&entry.file_name())?, entry.path()))).collect();
    pythons.sort_by(|one, other| other.cmp(one));
    let folder = |path: PathBuf| PACKAGES.map(|name| path.join(name).join("obmalloc/lib"));
    pythons.into_iter().flat_map(|(_, path)| folder(path)).filter(|path| path.exists()).collect()
}

/// Returns the `12` of `python3.12`, and 0 for Debian's `python3`.
fn minor(name: &OsStr) -> Option<u32> {
    match name.to_str()?.strip_prefix("python3")? {
        "" => Some(0),
        rest => rest.strip_prefix('.')?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Path, name: &str) {
        fs::create_dir_all(folder).unwrap();
        // The test program stands for a library, because it has the same format.
        std::os::unix::fs::symlink(env::current_exe().unwrap(), folder.join(name)).unwrap();
    }

    #[test]
    fn the_libraries_of_each_kind_of_installation_are_found() {
        for place in [
            "bin",
            "lib/python3.9/site-packages/obmalloc/lib",
            "lib/python3/dist-packages/obmalloc/lib",
            "local/lib/python3.11/dist-packages/obmalloc/lib",
            "obmalloc/lib",
            "lib",
            "lib/obmalloc",
        ] {
            let prefix = tempfile::tempdir().unwrap();
            let folder = prefix.path().join(place);
            put(&folder, CPYTHON);
            put(&folder, MALLOC[0]);
            let found = Libraries::find_in(&folders(&prefix.path().join("bin"))).unwrap();
            assert_eq!(found.cpython(), folder.join(CPYTHON), "{place}");
            assert_eq!(found.malloc(), Ok(&*folder.join(MALLOC[0])), "{place}");
        }
    }

    #[test]
    fn the_newest_of_several_pythons_is_taken() {
        let prefix = tempfile::tempdir().unwrap();
        for python in ["python3.9", "python3.12", "python3.10"] {
            put(
                &prefix.path().join("lib").join(python).join("site-packages/obmalloc/lib"),
                CPYTHON,
            );
        }
        let found = Libraries::find_in(&folders(&prefix.path().join("bin"))).unwrap();
        assert!(found.cpython().to_str().unwrap().contains("python3.12"));
    }

    #[test]
    fn a_missing_library_is_an_error_that_names_the_folders() {
        let error = Libraries::find_in(&["/nowhere".into()]).unwrap_err().to_string();
        assert!(error.contains("/nowhere") && error.contains("pip install"), "{error}");
        let alone = Libraries::new("/x/libobmalloc_cpython.so".into(), None);
        assert!(alone.malloc().unwrap_err().to_string().contains("libobmalloc.so is not beside"));
    }
}
