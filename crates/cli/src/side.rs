//! The allocators on which a comparison runs a program.

#![forbid(unsafe_code)]

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

use crate::{
    failure::{Attempt, Failure, Result},
    libraries::Libraries,
    preload,
    system::pass_on_ignored_sigpipe,
    target::Invocation,
};

/// An allocator for a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// CPython's own allocator, `pymalloc`.
    CPython,
    /// The C library's allocator, for every request.
    Malloc,
    /// Our heap.
    Obmalloc,
    /// Another library that replaces malloc, for every request.
    Library(PathBuf),
}

/// The environment variables to remove, because they change what a program allocates.
const VARIABLES: [&str; 7] = [
    "PYTHONMALLOC",
    "PYTHONMALLOCSTATS",
    "PYTHONDEVMODE",
    "PYTHONTRACEMALLOC",
    "OBMALLOC",
    "OBMALLOC_STATS",
    preload::VARIABLE,
];

impl Side {
    /// The allocators of a comparison, unless the user names others. Ours is the last one.
    pub const ALL: [Self; 3] = [Self::CPython, Self::Malloc, Self::Obmalloc];

    /// Returns a command that runs `invocation` on this allocator.
    ///
    /// Unless the user has set `PYTHONHASHSEED`, the command sets a fixed seed, so that every run
    /// does the same work.
    ///
    /// # Errors
    ///
    /// Fails if the path of a library cannot be listed in `LD_PRELOAD`.
    pub fn command(&self, invocation: &Invocation, libraries: &Libraries) -> Result<Command> {
        let mut command = Command::new(&invocation.path);
        command.args(&invocation.args);
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        if env::var_os("PYTHONHASHSEED").is_none() {
            command.env("PYTHONHASHSEED", "0");
        }
        let preloaded = |path: &Path| preload::value(&[path], None);
        match self {
            Self::CPython => &mut command,
            Self::Malloc => command.env("PYTHONMALLOC", "malloc"),
            Self::Obmalloc => command.env(preload::VARIABLE, preloaded(libraries.cpython())?),
            Self::Library(path) => {
                command.env("PYTHONMALLOC", "malloc").env(preload::VARIABLE, preloaded(path)?)
            }
        };
        pass_on_ignored_sigpipe(&mut command);
        Ok(command)
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CPython => f.write_str("CPython"),
            Self::Malloc => f.write_str("malloc"),
            Self::Obmalloc => f.write_str("obmalloc"),
            Self::Library(path) => {
                write!(f, "{}", path.file_name().unwrap_or(path.as_os_str()).display())
            }
        }
    }
}

impl FromStr for Side {
    type Err = Failure;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "cpython" => Ok(Self::CPython),
            "malloc" => Ok(Self::Malloc),
            "obmalloc" => Ok(Self::Obmalloc),
            path if path.contains('/') => {
                let path = Path::new(path);
                let path = path.canonicalize().attempt(|| format!("cannot find {path:?}"))?;
                Ok(Self::Library(path))
            }
            _ => Err(Failure::new(format!("there is no allocator {word:?}"))
                .because("only cpython, malloc, obmalloc and paths of libraries are known")),
        }
    }
}
