//! Functions that find the library, compile programs, and run them with the library.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    sync::LazyLock,
};

use testkit::pythons::clean_command;

pub(crate) fn library() -> &'static Path {
    static LIBRARY: LazyLock<PathBuf> =
        LazyLock::new(|| match env::var_os("OBMALLOC_MALLOC_LIB") {
            Some(library) => PathBuf::from(library),
            None => build("obmalloc-malloc", "libobmalloc_malloc.so"),
        });
    &LIBRARY
}

/// Builds the library `file` of `package` as a release.
pub(crate) fn build(package: &str, file: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let status = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--release", "--package", package, "--target-dir"])
        .arg(target)
        .status()
        .unwrap();
    assert!(status.success(), "{package} cannot be built");
    target.join("release").join(file)
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

impl Run {
    /// Asserts that the program succeeded without output on stderr.
    pub(crate) fn is_clean(&self) -> &Self {
        assert!(self.status.success() && self.stderr.is_empty(), "{self:?}");
        self
    }
}

pub(crate) fn run(command: &mut Command) -> Run {
    Run::from(command.output().unwrap())
}

/// Returns a command that runs `program` with the library.
pub(crate) fn preloaded(program: impl AsRef<OsStr>) -> Command {
    let mut command = clean_command(program);
    command.env("LD_PRELOAD", library());
    command
}

/// Compiles the program `source`, a C or C++ file in `tests/programs`, into `folder`.
pub(crate) fn compile(folder: &Path, source: &str, flags: &[&str]) -> PathBuf {
    let (compiler, standard) = match source.ends_with(".cpp") {
        true => ("c++", "-std=c++17"),
        false => ("cc", "-std=gnu11"),
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(source);
    let product = folder.join(Path::new(source).file_stem().unwrap());
    let mut command = clean_command(compiler);
    command.args([standard, "-O1", "-fno-builtin", "-Wall", "-Werror", "-pthread", "-o"]);
    let status = command.arg(&product).arg(&path).args(flags).status().unwrap();
    assert!(status.success(), "{} cannot be compiled", path.display());
    assert!(fs::exists(&product).unwrap());
    product
}
