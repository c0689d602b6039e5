//! The allocators on which a Python program can run.

use std::{path::Path, process::Command};

use testkit::pythons::Python;

/// An allocator of small objects. Environment variables make a Python use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// CPython's own allocator, `pymalloc`.
    CPython,
    /// The C library's allocator `malloc`, for every request.
    Malloc,
    /// Our heap.
    Obmalloc,
}

/// The environment variables that choose an allocator, or that make Python allocate more than the
/// program itself does. We remove them.
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

    /// Returns a command that runs `python` on this allocator. The command fixes the seed of
    /// Python's string hashes unless the user sets another seed. The hashes are then the same in
    /// every run, so all runs do the same work.
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
