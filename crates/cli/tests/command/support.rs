//! Functions that run the program with the libraries of this checkout.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
};

use testkit::pythons::{Python, clean_command, find};

/// Returns the folder that contains the library. Builds the library unless `OBMALLOC_LIB` names it.
pub(crate) fn libdir() -> &'static Path {
    static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| match env::var_os("OBMALLOC_LIB") {
        Some(library) => PathBuf::from(library),
        None => build(),
    });
    LIBRARY.parent().unwrap()
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

/// Returns a supported Python.
pub(crate) fn python() -> &'static Python {
    static PYTHON: LazyLock<Python> = LazyLock::new(|| {
        find().into_iter().find(Python::is_supported).expect("no supported CPython was found")
    });
    &PYTHON
}

/// Returns a command that runs `obmalloc` with the given arguments.
pub(crate) fn obmalloc(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = clean_command(env!("CARGO_BIN_EXE_obmalloc"));
    command.env("OBMALLOC_LIBDIR", libdir()).env_remove("VIRTUAL_ENV");
    command.env("OBMALLOC_PYTHON", &python().executable);
    command.env("PYTHONDONTWRITEBYTECODE", "1").args(words);
    command
}

/// The output of a command, and its exit code.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        }
    }
}

impl Run {
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::from(command.output().unwrap())
    }

    /// Asserts that the command printed nothing to stderr and succeeded.
    pub(crate) fn succeeds(self) -> Self {
        assert!(self.code == Some(0) && self.stderr.is_empty(), "{self:?}");
        self
    }

    /// Asserts that the command failed with `code` and printed each of `parts`.
    pub(crate) fn fails(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        let is_there = |part: &&str| self.stderr.contains(*part);
        assert!(parts.iter().all(is_there), "{parts:?} in {self:?}");
        self
    }
}

/// Python code that prints whether the library is mapped, for the process itself and for a child.
pub(crate) const MAPPED: &str = "
import subprocess, sys
code = '''print('libobmalloc_cpython' in open('/proc/self/maps').read(), flush=True)'''
exec(code)
subprocess.run([sys.executable, '-c', code], check=True)
";

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Compiles an empty C program with `flags`.
pub(crate) fn compiled(folder: &Path, flags: &[&str]) -> PathBuf {
    let (source, program) = (folder.join("p.c"), folder.join("p"));
    fs::write(&source, "int main(void) { return 0; }").unwrap();
    let status = Command::new("cc").arg(&source).arg("-o").arg(&program).args(flags).status();
    assert!(status.unwrap().success());
    program
}
