//! The allocators that a program is run on.

use std::{path::Path, process::Command};

use testkit::pythons::Python;

/// An allocator of small objects, as the environment of a Python chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// CPython's own: `pymalloc`.
    CPython,
    /// The C library's, for every request.
    Malloc,
    /// Ours.
    Obmalloc,
}

/// What chooses an allocator in a Python, or makes it allocate more than the program does.
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

    /// How tables call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::CPython => "CPython",
            Self::Malloc => "malloc",
            Self::Obmalloc => "obmalloc",
        }
    }

    /// A command that runs `python` on it. Strings hash alike in every run, unless the user says
    /// how, so that all runs do the same work.
    pub(super) fn command(self, python: &Python, library: &Path) -> Command {
        let mut command = Command::new(&python.executable);
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        if std::env::var_os("PYTHONHASHSEED").is_none() {
            command.env("PYTHONHASHSEED", "0");
        }
        match self {
            Self::CPython => {}
            Self::Malloc => {
                command.env("PYTHONMALLOC", "malloc");
            }
            Self::Obmalloc => {
                command.env("LD_PRELOAD", library);
            }
        }
        command
    }
}
