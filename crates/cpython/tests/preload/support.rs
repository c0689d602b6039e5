//! The library, the Pythons, and programs to run with and without it.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    sync::LazyLock,
};

use serde_json::Value;
use tempfile::TempDir;

/// The library under test.
pub(crate) fn library() -> &'static Path {
    static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| match env::var_os("OBMALLOC_LIB") {
        Some(library) => PathBuf::from(library),
        None => build(),
    });
    &LIBRARY
}

fn build() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--package", "obmalloc-cpython", "--target-dir"])
        .arg(target)
        .status()
        .unwrap();
    assert!(status.success(), "the library does not build");
    target.join("release/libobmalloc_cpython.so")
}

/// A Python of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Python {
    pub(crate) path: PathBuf,
    pub(crate) minor: u32,
}

impl Python {
    fn at(path: PathBuf) -> Option<Self> {
        let path = path.canonicalize().ok()?;
        let code = "import sys; print('%d %d' % sys.version_info[:2])";
        let output = command(&path).args(["-c", code]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let minor = text.trim().strip_prefix("3 ")?.parse().ok()?;
        Some(Self { path, minor })
    }

    /// The command that runs this Python without the library.
    pub(crate) fn command(&self) -> Command {
        command(&self.path)
    }

    /// The command that runs this Python with the library.
    pub(crate) fn preloaded(&self) -> Command {
        let mut command = self.command();
        command.env("LD_PRELOAD", library());
        command
    }

    /// Runs `code` with the library. Returns what it printed, and the statistics of its process.
    pub(crate) fn run_counted(&self, code: &str) -> (Run, Value) {
        let folder = TempDir::new().unwrap();
        let mut command = self.preloaded();
        command.env("OBMALLOC_STATS", folder.path().join("%p.json")).args(["-c", code]);
        let child = command.stdout(piped()).stderr(piped()).spawn().unwrap();
        let file = folder.path().join(format!("{}.json", child.id()));
        let run = Run::from(child.wait_with_output().unwrap());
        let json = fs::read_to_string(&file).unwrap_or_else(|_| panic!("no statistics: {run:?}"));
        (run, serde_json::from_str(&json).unwrap())
    }
}

fn piped() -> std::process::Stdio {
    std::process::Stdio::piped()
}

/// A command in an environment that says nothing to CPython or to the library.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("PYTHON") || name.starts_with("OBMALLOC") || name.starts_with("LD_") {
            command.env_remove(&*name);
        }
    }
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Every Python 3 of this machine.
pub(crate) fn pythons() -> &'static [Python] {
    static PYTHONS: LazyLock<Vec<Python>> = LazyLock::new(|| {
        let paths = match env::var_os("OBMALLOC_PYTHONS") {
            Some(list) => env::split_paths(&list).collect(),
            None => usual_places(),
        };
        let mut pythons: Vec<Python> = paths.into_iter().filter_map(Python::at).collect();
        pythons.sort_by(|a, b| (a.minor, &a.path).cmp(&(b.minor, &b.path)));
        pythons.dedup_by(|a, b| a.path == b.path);
        pythons
    });
    assert!(!PYTHONS.is_empty(), "no Python found");
    &PYTHONS
}

fn usual_places() -> Vec<PathBuf> {
    let home = env::home_dir().unwrap_or_default();
    let pyenv = fs::read_dir(home.join(".pyenv/versions")).into_iter().flatten();
    let mut places: Vec<_> =
        pyenv.flatten().map(|entry| entry.path().join("bin/python3")).collect();
    let path = env::var_os("PATH").unwrap_or_default();
    places.extend(env::split_paths(&path).map(|folder| folder.join("python3")));
    places.push(PathBuf::from("/usr/bin/python3"));
    places
}

/// The Pythons that the heap is for.
pub(crate) fn supported() -> impl Iterator<Item = &'static Python> {
    pythons().iter().filter(|python| (8..=14).contains(&python.minor))
}

/// How a program ended, and what it printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: ExitStatus,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            status: output.status,
        }
    }
}

/// Runs `command` to its end.
pub(crate) fn run(command: &mut Command) -> Run {
    Run::from(command.output().unwrap())
}

impl Run {
    /// The program ended well and printed nothing to stderr. `whose` says which run it was.
    pub(crate) fn is_clean(&self, whose: impl std::fmt::Debug) -> &Self {
        assert!(self.status.success() && self.stderr.is_empty(), "{whose:?}: {self:?}");
        self
    }
}

/// Compiles C: a program, or with `-shared` among `flags` a library.
pub(crate) fn compile(folder: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let (code, product) = (folder.join(format!("{name}.c")), folder.join(name));
    fs::write(&code, source).unwrap();
    let mut cc = command("cc");
    let status = cc.args(["-O1", "-fPIC", "-o"]).arg(&product).arg(&code).args(flags).status();
    assert!(status.unwrap().success(), "{name}.c does not compile");
    product
}
