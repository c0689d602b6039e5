//! Every CPython of this machine.
//!
//! ```text
//!   $OBMALLOC_PYTHONS, or else      asked what it is
//!   python3 on the PATH ─────┐
//!   pyenv's versions ────────┼──► an answer ──► Python       one for each program
//!   /usr/bin/python3* ───────┤    none      ──► silent
//!   those that were brought ─┘
//! ```
//!
//! `cargo xtask pythons` brings Pythons that are newer than this machine's into a folder of the
//! project, see [`brought`].
//!
//! `$OBMALLOC_PYTHONS` is a list of paths, of the form of `PATH`. A pyenv shim is a script that
//! starts another program, so a Python is known by what it says of itself, not by its file.

pub mod brought;
mod search;

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

pub use search::{NAMED, Search, are_named, find, search};

/// The versions that the heap is for.
const SUPPORTED_MINORS: std::ops::RangeInclusive<u8> = 8..=15;

/// The versions that the heap is for, in words.
pub const SUPPORTED: &str = "CPython 3.8 to 3.15";

/// How long an interpreter may think about the question.
const PATIENCE: Duration = Duration::from_secs(30);

/// What each interpreter is asked; it answers a line `name=value` for each fact.
const QUESTION: &str = "
import importlib.util, os, platform, sys, sysconfig
def tests():
    try:
        parts = ('test.libregrtest', 'test.test_dict')
        return all(importlib.util.find_spec(part) for part in parts)
    except ImportError:
        return False
config = sysconfig.get_config_var
def shared():
    if config('Py_ENABLE_SHARED'):
        # A Python that was moved still names the folder that it was built for.
        moved = os.path.join(sys.base_prefix, 'lib')
        for folder in (config('LIBDIR'), moved, os.path.join(moved, config('MULTIARCH') or '')):
            path = os.path.join(folder or '', config('INSTSONAME') or '')
            if os.path.exists(path):
                return path
    return ''
def loader():
    with open('/proc/self/maps') as maps:
        paths = [line.split()[-1] for line in maps if '/ld-' in line]
    return paths[0] if paths else ''
facts = {
    'executable': os.path.abspath(sys.executable),
    'implementation': platform.python_implementation(),
    'version': '%d.%d.%d' % sys.version_info[:3],
    'libpython': shared(),
    'loader': loader(),
    'gil': int(not config('Py_GIL_DISABLED')),
    'debug': int(hasattr(sys, 'gettotalrefcount')),
    'tests': int(tests()),
}
for fact in facts.items():
    print('%s=%s' % fact)
";

/// A CPython of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Python {
    /// Its executable, as it calls itself: in a virtual environment, the link there.
    pub executable: PathBuf,
    /// Major, minor and micro version.
    pub version: (u8, u8, u8),
    /// The shared library that it runs on; `None` when it is linked statically.
    pub libpython: Option<PathBuf>,
    /// The dynamic loader that started it. A Python that was brought has one of its own, and with
    /// it another C library than the rest of this machine.
    pub loader: PathBuf,
    /// False for a free-threaded build.
    pub has_gil: bool,
    /// It is a debug build (`--with-pydebug`), whose default allocator is the debug allocator.
    pub is_debug: bool,
    /// `python -m test` is there, and tests for it to run.
    pub ships_tests: bool,
}

impl Python {
    /// The heap is for this version and build.
    pub fn is_supported(&self) -> bool {
        let (major, minor, _) = self.version;
        let is_known = major == 3 && SUPPORTED_MINORS.contains(&minor);
        is_known && self.has_gil && !self.is_debug
    }

    /// Returns true if a program of this machine cannot load its libpython, because that needs a
    /// newer C library.
    pub fn has_own_c_library(&self) -> bool {
        brought::has(&self.loader)
    }

    /// Version and executable.
    pub fn name(&self) -> String {
        let (major, minor, micro) = self.version;
        format!("{major}.{minor}.{micro} {}", self.executable.display())
    }

    /// Asks the interpreter at `path` what it is; `None` when it does not answer, or is not
    /// CPython.
    pub fn ask(path: &Path) -> Option<Self> {
        let child = clean_command(path)
            .args(["-I", "-S", "-c", QUESTION])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Self::from_answer(&answer(child, PATIENCE)?)
    }

    fn from_answer(answer: &str) -> Option<Self> {
        let facts: BTreeMap<&str, &str> =
            answer.lines().filter_map(|line| line.split_once('=')).collect();
        if *facts.get("implementation")? != "CPython" {
            return None;
        }
        let mut version = facts.get("version")?.split('.').map(|part| part.parse().ok());
        let mut part = || version.next().flatten();
        Some(Self {
            executable: PathBuf::from(facts.get("executable")?),
            version: (part()?, part()?, part()?),
            libpython: facts.get("libpython").filter(|path| !path.is_empty()).map(PathBuf::from),
            loader: PathBuf::from(facts.get("loader")?),
            has_gil: *facts.get("gil")? == "1",
            is_debug: *facts.get("debug")? == "1",
            ships_tests: *facts.get("tests")? == "1",
        })
    }
}

/// What `child` printed, if it ended within `patience`. Else it is killed.
fn answer(mut child: Child, patience: Duration) -> Option<String> {
    let deadline = Instant::now() + patience;
    while child.try_wait().ok()?.is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
    let mut answer = String::new();
    child.stdout?.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A command in an environment that says nothing to CPython, to the loader or to the library.
pub fn clean_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if ["PYTHON", "OBMALLOC", "LD_"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "executable=/opt/python3.12\nimplementation=CPython\nversion=3.12.1\n\
                          libpython=\nloader=/lib/ld-2.36.so\ngil=1\ndebug=0\ntests=0\n";

    #[test]
    fn an_answer_is_read_fact_by_fact() {
        let python = Python::from_answer(ANSWER).unwrap();
        assert_eq!(python.version, (3, 12, 1));
        assert_eq!((&python.libpython, python.ships_tests), (&None, false));
        assert!(python.is_supported());
    }

    #[test]
    fn what_is_too_old_too_new_without_a_gil_or_for_debugging_is_not_supported() {
        let supported = |from: &str, to: &str| {
            Python::from_answer(&ANSWER.replace(from, to))
                .is_some_and(|python| python.is_supported())
        };
        assert!(supported("3.12.1", "3.8.0") && supported("3.12.1", "3.15.4"));
        assert!(!supported("3.12.1", "3.7.16") && !supported("3.12.1", "3.16.0"));
        assert!(!supported("gil=1", "gil=0") && !supported("debug=0", "debug=1"));
        assert!(!supported("CPython", "PyPy"));
    }

    #[test]
    fn half_an_answer_is_no_python() {
        assert_eq!(Python::from_answer(""), None);
        assert_eq!(Python::from_answer("implementation=CPython\nversion=3"), None);
    }

    #[test]
    fn a_program_that_does_not_end_is_not_waited_for() {
        let mut sleep = Command::new("sleep");
        let child = sleep.arg("60").stdout(Stdio::piped()).spawn().unwrap();
        let started = Instant::now();
        assert_eq!(answer(child, Duration::from_millis(20)), None);
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
