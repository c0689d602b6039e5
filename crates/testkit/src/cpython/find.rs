//! The Pythons of this machine that have a shared library.

use std::{fs, path::PathBuf, sync::LazyLock};

use crate::{
    pythons::{self, Python},
    reference::Rules,
};

/// A shared libpython, and the installation that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Libpython {
    /// The file of the library.
    pub(super) path: PathBuf,
    /// The folder of its standard library, in the form of `PYTHONHOME`.
    pub(super) home: PathBuf,
    /// The dynamic loader that must start a program that loads the library, or `None` for the
    /// usual one.
    pub(super) loader: Option<PathBuf>,
}

/// Returns the libpythons of [`pythons::find`], each once.
///
/// It leaves out interpreters that are linked statically, versions without known rules,
/// free-threaded builds, which have no `pymalloc`, and debug builds, which wrap it in the debug
/// allocator.
pub(super) fn libpythons() -> &'static [Libpython] {
    static FOUND: LazyLock<Vec<Libpython>> = LazyLock::new(|| {
        let mut found: Vec<_> = pythons::find().iter().filter_map(Libpython::of).collect();
        found.dedup_by(|one, other| one.path == other.path);
        found
    });
    &FOUND
}

impl Libpython {
    /// Returns the library of `python`, unless [`libpythons`] leaves it out.
    fn of(python: &Python) -> Option<Self> {
        let path = python.libpython.clone()?;
        Rules::of_cpython(python.version).filter(|_| python.has_gil && !python.is_debug)?;
        // In a virtual environment the executable is a link to the installation.
        let executable = fs::canonicalize(&python.executable).ok()?;
        let loader = python.has_own_c_library().then(|| python.loader.clone());
        Some(Self { path, home: executable.parent()?.parent()?.to_owned(), loader })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python() -> Python {
        Python {
            executable: "/bin/sh".into(),
            version: (3, 13, 0),
            libpython: Some("/lib/libpython3.13.so.1.0".into()),
            loader: "/lib/ld-2.36.so".into(),
            has_gil: true,
            is_debug: false,
            ships_tests: false,
        }
    }

    #[test]
    fn only_a_release_with_a_shared_library_and_known_rules_is_used() {
        assert!(Libpython::of(&python()).is_some());
        let left_out = [
            Python { libpython: None, ..python() },
            Python { is_debug: true, ..python() },
            Python { has_gil: false, ..python() },
            Python { version: (3, 6, 15), ..python() },
        ];
        assert_eq!(left_out.map(|python| Libpython::of(&python)), [const { None }; 4]);
    }
}
