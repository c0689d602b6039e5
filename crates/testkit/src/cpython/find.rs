//! Which of this machine's Pythons have a shared library that can be started.

use std::{fs, path::PathBuf, sync::OnceLock};

use super::Version;
use crate::pythons::{self, Python};

/// A shared libpython, and the installation that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Libpython {
    /// The library's file.
    pub path: PathBuf,
    /// Where its standard library is, as `PYTHONHOME` wants it.
    pub home: PathBuf,
    /// The dynamic loader to run a program by that loads the library; `None` where the program's
    /// own will do.
    pub(super) loader: Option<PathBuf>,
}

/// The libpythons of [`pythons::find`], each once, looked for once in a process.
///
/// Left out are interpreters that are linked statically, as they have no library to load;
/// versions without known rules; free-threaded builds, which have no `pymalloc`; and debug builds,
/// which have it under hooks.
pub fn libpythons() -> &'static [Libpython] {
    static FOUND: OnceLock<Vec<Libpython>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut found: Vec<_> = pythons::find().iter().filter_map(Libpython::of).collect();
        found.dedup_by(|one, other| one.path == other.path);
        found
    })
}

impl Libpython {
    /// The library of `python`, if there is one that can be started.
    fn of(python: &Python) -> Option<Self> {
        let (major, minor, patch) = python.version;
        let version = Version { major: major.into(), minor: minor.into(), patch: patch.into() };
        let path = python.libpython.clone()?;
        version.rules().filter(|_| python.has_gil && !python.is_debug)?;
        // In a virtual environment the executable is a link to the one that has a library.
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
    fn only_a_release_with_a_library_and_known_rules_can_be_started() {
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
