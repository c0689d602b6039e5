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

use super::brought;

const SUPPORTED_MINORS: std::ops::RangeInclusive<u8> = 8..=15;

/// The supported versions, as text for messages.
pub const SUPPORTED: &str = "CPython 3.8 to 3.15";

/// An interpreter that takes longer to answer is killed and ignored.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The program that an interpreter runs to print each of its properties as `name=value`.
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
        # A Python that was moved still names the folder for which it was built.
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

/// A CPython on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Python {
    /// The path that the interpreter reports. In a virtual environment, the path is a symbolic
    /// link.
    pub executable: PathBuf,
    /// The major, minor and micro version.
    pub version: (u8, u8, u8),
    /// The shared libpython, or `None` if the interpreter is linked statically.
    pub libpython: Option<PathBuf>,
    /// The dynamic loader of the interpreter. A [downloaded](brought) Python has its own.
    pub loader: PathBuf,
    /// True if the interpreter has a GIL, and false for a free-threaded build.
    pub has_gil: bool,
    /// True for a debug build (`--with-pydebug`), whose default allocator is the debug allocator.
    pub is_debug: bool,
    /// True if CPython's own tests are installed.
    pub ships_tests: bool,
}

impl Python {
    /// Returns true if our heaps support this version and build.
    pub fn is_supported(&self) -> bool {
        let (major, minor, _) = self.version;
        let is_known = major == 3 && SUPPORTED_MINORS.contains(&minor);
        is_known && self.has_gil && !self.is_debug
    }

    /// Returns true if the interpreter brings its own C library, which its libpython needs.
    pub fn has_own_c_library(&self) -> bool {
        brought::has(&self.loader)
    }

    /// Returns the version and the path of the executable, as text for messages.
    pub fn name(&self) -> String {
        let (major, minor, micro) = self.version;
        format!("{major}.{minor}.{micro} {}", self.executable.display())
    }

    /// Asks the program at `path` for its properties.
    ///
    /// Returns `None` if the program is not CPython or does not answer within 30 seconds.
    pub fn ask(path: &Path) -> Option<Self> {
        let child = clean_command(path)
            .args(["-I", "-S", "-c", QUESTION])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Self::from_answer(&output_within(TIMEOUT, child)?)
    }

    fn from_answer(answer: &str) -> Option<Self> {
        let facts: BTreeMap<&str, &str> =
            answer.lines().filter_map(|line| line.split_once('=')).collect();
        if *facts.get("implementation")? != "CPython" {
            return None;
        }
        Some(Self {
            executable: PathBuf::from(facts.get("executable")?),
            version: parse_version(facts.get("version")?)?,
            libpython: facts.get("libpython").filter(|path| !path.is_empty()).map(PathBuf::from),
            loader: PathBuf::from(facts.get("loader")?),
            has_gil: *facts.get("gil")? == "1",
            is_debug: *facts.get("debug")? == "1",
            ships_tests: *facts.get("tests")? == "1",
        })
    }
}

/// Parses the version at the start of `text`, such as `3.14.0rc2 (main)`.
pub(crate) fn parse_version(text: &str) -> Option<(u8, u8, u8)> {
    let number = |part: &str| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse().ok()
    };
    let mut parts = text.split_whitespace().next()?.splitn(3, '.').map(number);
    Some((parts.next()??, parts.next()??, parts.next()??))
}

fn output_within(timeout: Duration, mut child: Child) -> Option<String> {
    let deadline = Instant::now() + timeout;
    while child.try_wait().ok()?.is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
    let mut output = String::new();
    child.stdout?.read_to_string(&mut output).ok()?;
    Some(output)
}

/// Returns a command without the variables that configure CPython, the loader or our library.
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
    fn an_answer_is_parsed_fact_by_fact() {
        let python = Python::from_answer(ANSWER).unwrap();
        assert_eq!(python.version, (3, 12, 1));
        assert_eq!((&python.libpython, python.ships_tests), (&None, false));
        assert!(python.is_supported());
    }

    #[test]
    fn only_releases_of_known_versions_with_a_gil_are_supported() {
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
    fn an_incomplete_answer_is_rejected() {
        assert_eq!(Python::from_answer(""), None);
        assert_eq!(Python::from_answer("implementation=CPython\nversion=3"), None);
    }

    #[test]
    fn a_version_is_parsed_up_to_its_digits() {
        assert_eq!(parse_version("3.13.0 (main, Oct  7 2024) [GCC 12.2.0]"), Some((3, 13, 0)));
        assert_eq!(parse_version("3.14.0rc2 (main)"), Some((3, 14, 0)));
        assert_eq!(parse_version("PyPy"), None);
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let mut sleep = Command::new("sleep");
        let child = sleep.arg("60").stdout(Stdio::piped()).spawn().unwrap();
        let started = Instant::now();
        assert_eq!(output_within(Duration::from_millis(20), child), None);
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
