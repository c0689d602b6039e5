//! The allocators on which a Python program can run.

use std::{path::Path, process::Command};

use testkit::pythons::Python;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// CPython's own allocator, `pymalloc`.
    CPython,
    /// The C library's allocator, for every request.
    Malloc,
    Obmalloc,
}

/// The environment variables to remove, because they change what Python allocates.
const VARIABLES: [&str; 7] = [
    "PYTHONMALLOC",
    "PYTHONMALLOCSTATS",
    "PYTHONDEVMODE",
    "PYTHONTRACEMALLOC",
    "OBMALLOC",
    "OBMALLOC_STATS",
    "LD_PRELOAD",
];

impl Side {
    pub(super) const ALL: [Self; 3] = [Self::CPython, Self::Malloc, Self::Obmalloc];

    /// Returns a command that runs `python` on this allocator.
    ///
    /// A fixed seed makes the hashes of strings, and thus the work, the same in every run.
    pub(super) fn command(self, python: &Python, library: &Path) -> Command {
        let mut command = Command::new(&python.executable);
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        if std::env::var_os("PYTHONHASHSEED").is_none() {
            command.env("PYTHONHASHSEED", "0");
        }
        match self {
            Self::CPython => &mut command,
            Self::Malloc => command.env("PYTHONMALLOC", "malloc"),
            Self::Obmalloc => command.env("LD_PRELOAD", library),
        };
        command
    }
}
