//! Functions that run programs with and without the library.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output, Stdio},
    sync::LazyLock,
};

use serde_json::Value;
use tempfile::TempDir;
use testkit::pythons::{Python, clean_command};

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
    assert!(status.success(), "the library cannot be built");
    target.join("release/libobmalloc_cpython.so")
}

pub(crate) fn pythons() -> &'static [Python] {
    static PYTHONS: LazyLock<Vec<Python>> = LazyLock::new(testkit::pythons::find);
    assert!(!PYTHONS.is_empty(), "no CPython was found (OBMALLOC_PYTHONS can name some)");
    &PYTHONS
}

pub(crate) fn supported() -> impl Iterator<Item = &'static Python> {
    pythons().iter().filter(|python| python.is_supported())
}

/// Returns the supported CPythons in which each interpreter may have its own GIL.
pub(crate) fn with_many_gils() -> impl Iterator<Item = &'static Python> {
    supported().filter(|python| python.version.1 >= 12)
}

/// Returns a command whose environment has no variables of CPython, the loader or the library.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = clean_command(program);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

pub(crate) fn plain(python: &Python) -> Command {
    command(&python.executable)
}

pub(crate) fn preloaded(python: &Python) -> Command {
    let mut command = plain(python);
    command.env("LD_PRELOAD", library());
    command
}

pub(crate) fn run_counted(python: &Python, code: &str) -> (Run, Value) {
    let folder = TempDir::new().unwrap();
    let mut command = preloaded(python);
    command.env("OBMALLOC_STATS", folder.path().join("%p.json")).args(["-c", code]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let file = folder.path().join(format!("{}.json", child.id()));
    let run = Run::from(child.wait_with_output().unwrap());
    let json = fs::read(&file).unwrap_or_else(|_| panic!("no statistics: {run:?}"));
    (run, serde_json::from_slice(&json).unwrap())
}

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

pub(crate) fn run(command: &mut Command) -> Run {
    Run::from(command.output().unwrap())
}

impl Run {
    /// Asserts that the program succeeded without output on stderr. `whose` names the run.
    pub(crate) fn is_clean(&self, whose: impl std::fmt::Debug) -> &Self {
        assert!(self.status.success() && self.stderr.is_empty(), "{whose:?}: {self:?}");
        self
    }
}

pub(crate) fn compile(
    folder: &Path,
    name: &str,
    source: &str,
    flags: &[impl AsRef<OsStr>],
) -> PathBuf {
    let (code, product) = (folder.join(format!("{name}.c")), folder.join(name));
    fs::write(&code, source).unwrap();
    let mut cc = command("cc");
    let status = cc.args(["-O1", "-fPIC", "-o"]).arg(&product).arg(&code).args(flags).status();
    assert!(status.unwrap().success(), "{name}.c cannot be compiled");
    product
}

pub(crate) fn home(python: &Python) -> String {
    let code = "import sys; print(sys.base_prefix)";
    run(plain(python).args(["-c", code])).stdout.trim().to_owned()
}

/// Returns linker flags for `libpython` and, if `python` has its own C library, for that C library.
pub(crate) fn linker_flags(python: &Python, libpython: &Path) -> Vec<String> {
    let folder = libpython.parent().unwrap();
    let mut flags = vec![format!("-Wl,-rpath,{}", folder.display())];
    if python.has_own_c_library() {
        flags.push(format!("-Wl,--dynamic-linker={}", python.loader.display()));
        // The older kind of search path (`RPATH`) also applies to dependencies of the libraries.
        flags.push("-Wl,--disable-new-dtags".to_owned());
        // The linker of this system does not find the symbols of a newer C library.
        flags.push("-Wl,--unresolved-symbols=ignore-in-shared-libs".to_owned());
    }
    flags
}
