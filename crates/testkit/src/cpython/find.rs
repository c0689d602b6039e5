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
        let is_debug = path.to_string_lossy().contains("d.so");
        version.rules().filter(|_| python.has_gil && !is_debug)?;
        // In a virtual environment the executable is a link to the one that has a library.
        let executable = fs::canonicalize(&python.executable).ok()?;
        Some(Self { path, home: executable.parent()?.parent()?.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn libpython(version: (u8, u8, u8), library: &str, has_gil: bool) -> Option<Libpython> {
        Libpython::of(&Python {
            executable: "/bin/sh".into(),
            version,
            libpython: (!library.is_empty()).then(|| library.into()),
            has_gil,
            ships_tests: false,
        })
    }

    #[test]
    fn only_a_release_with_a_library_and_known_rules_can_be_started() {
        assert!(libpython((3, 13, 0), "/lib/libpython3.13.so.1.0", true).is_some());
        assert_eq!(libpython((3, 13, 0), "", true), None);
        assert_eq!(libpython((3, 13, 0), "/lib/libpython3.13d.so.1.0", true), None);
        assert_eq!(libpython((3, 13, 0), "/lib/libpython3.13t.so.1.0", false), None);
        assert_eq!(libpython((3, 6, 15), "/lib/libpython3.6m.so.1.0", true), None);
    }
}
