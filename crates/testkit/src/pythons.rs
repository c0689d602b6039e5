//! Every CPython of this machine.
//!
//! Looked for: the interpreters that `$OBMALLOC_PYTHONS` names (paths, as in `PATH`), and where it
//! is not set `python3` on the `PATH`, Debian's in `/usr/bin`, and those that pyenv installed. Each
//! is asked what it is; one that does not answer is left out.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The versions that the heap is for: 3.8 to 3.14.
const SUPPORTED_MINORS: std::ops::RangeInclusive<u8> = 8..=14;

/// What each interpreter is asked; it answers a line `name=value` for each fact.
const QUESTION: &str = "
import importlib.util, os, platform, sys, sysconfig
def tests():
    try:
        return importlib.util.find_spec('test.libregrtest') is not None
    except ImportError:
        return False
config = sysconfig.get_config_var
shared = os.path.join(config('LIBDIR') or '', config('INSTSONAME') or '')
facts = {
    'executable': os.path.realpath(sys.executable),
    'implementation': platform.python_implementation(),
    'version': '%d.%d.%d' % sys.version_info[:3],
    'libpython': shared if config('Py_ENABLE_SHARED') and os.path.exists(shared) else '',
    'gil': int(not config('Py_GIL_DISABLED')),
    'tests': int(tests()),
}
for fact in facts.items():
    print('%s=%s' % fact)
";

/// A CPython of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Python {
    /// Its executable, with links resolved.
    pub executable: PathBuf,
    /// Major, minor and micro version.
    pub version: (u8, u8, u8),
    /// The shared library that it runs on; `None` when it is linked statically.
    pub libpython: Option<PathBuf>,
    /// False for a free-threaded build.
    pub has_gil: bool,
    /// `python -m test` is there.
    pub ships_tests: bool,
}

impl Python {
    /// The heap is for this version and build.
    pub fn is_supported(&self) -> bool {
        let (major, minor, _) = self.version;
        major == 3 && SUPPORTED_MINORS.contains(&minor) && self.has_gil
    }

    /// Version and executable.
    pub fn name(&self) -> String {
        let (major, minor, micro) = self.version;
        format!("{major}.{minor}.{micro} {}", self.executable.display())
    }

    /// Asks the interpreter at `path` what it is; `None` when it does not answer, or is not
    /// CPython.
    pub fn ask(path: &Path) -> Option<Self> {
        let output = clean_command(path)
            .args(["-I", "-S", "-c", QUESTION])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        Self::from_answer(str::from_utf8(&output.stdout).ok()?)
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
            has_gil: *facts.get("gil")? == "1",
            ships_tests: *facts.get("tests")? == "1",
        })
    }
}

/// Every CPython that is found, each once, by version and path.
pub fn find() -> Vec<Python> {
    let places = match env::var_os("OBMALLOC_PYTHONS") {
        Some(named) => env::split_paths(&named).collect(),
        None => usual_places(),
    };
    let mut pythons: Vec<_> = places.iter().filter_map(|path| Python::ask(path)).collect();
    pythons.sort_by(|a, b| (a.version, &a.executable).cmp(&(b.version, &b.executable)));
    pythons.dedup_by(|a, b| a.executable == b.executable);
    pythons
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

fn usual_places() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|folder| folder.join("python3"));
    let root = env::var_os("PYENV_ROOT").map(PathBuf::from);
    let root = root.or_else(|| Some(env::home_dir()?.join(".pyenv")));
    let pyenv = entries(root.unwrap_or_default().join("versions"));
    let pyenv = pyenv.into_iter().map(|version| version.join("bin/python3"));
    let debian = entries(PathBuf::from("/usr/bin")).into_iter().filter(|path| is_python(path));
    on_path.chain(pyenv).chain(debian).filter(|place| place.exists()).collect()
}

/// `python3`, or `python3.` and a number.
fn is_python(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let version = name.strip_prefix("python3").and_then(|rest| rest.strip_prefix('.'));
    name == "python3" || version.is_some_and(|minor| minor.parse::<u8>().is_ok())
}

fn entries(folder: PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "executable=/opt/python3.12\nimplementation=CPython\nversion=3.12.1\n\
                          libpython=\ngil=1\ntests=0\n";

    #[test]
    fn an_answer_is_read_fact_by_fact() {
        let python = Python::from_answer(ANSWER).unwrap();
        assert_eq!(python.version, (3, 12, 1));
        assert_eq!((&python.libpython, python.ships_tests), (&None, false));
        assert!(python.is_supported());
    }

    #[test]
    fn what_is_too_old_too_new_or_without_a_gil_is_not_supported() {
        let supported = |from: &str, to: &str| {
            Python::from_answer(&ANSWER.replace(from, to))
                .is_some_and(|python| python.is_supported())
        };
        assert!(supported("3.12.1", "3.8.0") && supported("3.12.1", "3.14.4"));
        assert!(!supported("3.12.1", "3.7.16") && !supported("3.12.1", "3.15.0"));
        assert!(!supported("gil=1", "gil=0") && !supported("CPython", "PyPy"));
    }

    #[test]
    fn half_an_answer_is_no_python() {
        assert_eq!(Python::from_answer(""), None);
        assert_eq!(Python::from_answer("implementation=CPython\nversion=3"), None);
    }

    #[test]
    fn only_interpreters_are_taken_from_a_folder_of_programs() {
        let taken = ["python3", "python3.11"].map(|name| is_python(Path::new(name)));
        let left = ["python3-config", "python3.11-config"].map(|name| is_python(Path::new(name)));
        assert_eq!((taken, left), ([true; 2], [false; 2]));
    }
}
