//! Finds a program on the `PATH`, and refuses one that would run without the heap.

#![forbid(unsafe_code)]

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use crate::{
    env_line::Started,
    executable::{self, Kind},
    failure::{CANNOT_RUN, FAILED, Failure, NOT_FOUND, Result},
    system,
};

/// The largest number of files that we examine for one program.
///
/// The interpreter of a script can be another script. The kernel has a similar limit.
const MOST_INTERPRETERS: usize = 4;

/// The reason why a program will run without the heap, although it can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// The program has no loader.
    Static(PathBuf),
    /// The first line of this script removes `LD_PRELOAD`.
    Cleared(PathBuf),
    /// The program is Python 2, which cannot use the heap.
    Python2(PathBuf),
}

impl Remark {
    /// Returns the exit code with which `--strict` refuses the program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Static(_) => CANNOT_RUN,
            Self::Cleared(_) | Self::Python2(_) => FAILED,
        }
    }

    /// Returns true if our library itself prints this remark when the program starts.
    ///
    /// Of all remarks, the preloaded library prints only the one about Python 2. The library
    /// recognises Python 2 by CPython's function `Py_GetVersion`. It prints the remark only if one
    /// of the library's environment variables is set to a value that is not empty.
    pub(crate) fn is_printed_by_library(&self) -> bool {
        matches!(self, Self::Python2(path) if executable::exports_version(path))
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, text) = match self {
            Self::Static(path) => {
                (path, "is linked statically, so only programs that it starts can use the heap")
            }
            Self::Cleared(path) => (
                path,
                "runs without the heap, because its first line removes LD_PRELOAD from the \
                 environment",
            ),
            Self::Python2(path) => (
                path,
                "runs without the heap, because it is a Python 2, and only CPython 3.8 and later \
                 are supported",
            ),
        };
        write!(f, "{} {text}", path.display())
    }
}

/// Returns the path of the program that `execvp` would start for `name`.
///
/// If the environment has no `PATH`, we search the default path of the system, as `execvp` does.
///
/// If no folder on the `PATH` contains an executable file called `name`, we look for `name` in the
/// folder of the running `obmalloc` executable. For example, if a systemd unit runs
/// `/venv/bin/obmalloc run -- gunicorn` and no folder on the `PATH` contains `gunicorn`, we find
/// `/venv/bin/gunicorn` in the same virtual environment.
///
/// # Errors
///
/// Fails if there is no such program, or if it may not be executed.
pub fn find(name: &OsStr) -> Result<PathBuf> {
    find_on_path(name).or_else(|failure| {
        let this = env::current_exe().unwrap_or_default();
        let beside = this.parent().map(|folder| folder.join(name));
        // A name with a slash is a path, and not a name in our folder.
        let beside = beside.filter(|path| !is_path(name) && is_executable(path));
        beside.ok_or(failure)
    })
}

fn find_on_path(name: &OsStr) -> Result<PathBuf> {
    find_on(name, &search_path())
}

/// Returns the value of `PATH`, or the default path of the system if the variable is not set.
pub(crate) fn search_path() -> OsString {
    env::var_os("PATH").unwrap_or_else(system::default_path)
}

fn is_path(name: &OsStr) -> bool {
    name.as_bytes().contains(&b'/')
}

fn find_on(name: &OsStr, path: &OsStr) -> Result<PathBuf> {
    let cannot_run = || Failure::new(format!("cannot run {}", name.display()));
    let mut found = Vec::new();
    if is_path(name) {
        found.push(PathBuf::from(name));
    } else {
        found.extend(env::split_paths(path).map(|folder| folder.join(name)));
    }
    found.retain(|path| path.exists());
    match found.iter().find(|path| is_executable(path)) {
        Some(path) => Ok(path.clone()),
        None if found.is_empty() => {
            Err(cannot_run().because("there is no such program").code(NOT_FOUND))
        }
        None => Err(cannot_run()
            .because(format!("{} is not an executable file", found[0].display()))
            .code(CANNOT_RUN)),
    }
}

/// Returns true if `path` is a file that at least one user may execute.
pub(crate) fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
}

/// Checks that the loader can preload our library into the program at `path`.
///
/// To run a script, the system starts the interpreter that the script's first line names. For a
/// script, this function therefore checks that our library can be preloaded into this interpreter.
///
/// Returns a [`Remark`] if the program can be started, but will run without our heap. For example,
/// a statically linked program has no loader that could load our library.
///
/// # Errors
///
/// Fails if the system would remove `LD_PRELOAD`, or if the library would keep the program from
/// running.
pub fn check(path: &Path) -> Result<Option<Remark>> {
    let mut path = path.to_owned();
    for _ in 0..MOST_INTERPRETERS {
        let kind = Kind::of(&path);
        // The system ignores the privileges of a script.
        if !matches!(kind, Ok(Kind::Script(..)))
            && let Some(privilege) = executable::privilege(&path)
        {
            return Err(privileged(&path, privilege));
        }
        let refused = |reason: String| {
            Failure::new(format!("cannot put the heap into {}", path.display()))
                .because(reason)
                .code(CANNOT_RUN)
        };
        match kind {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
            Err(error) => return Err(refused(error.to_string())),
            Ok(Kind::Musl(loader)) => {
                let reason =
                    format!("it needs musl ({}), and the library needs glibc", loader.display());
                let remedy = "a program that is built for glibc, such as that of Debian's image";
                return Err(refused(reason).remedy(remedy));
            }
            Ok(Kind::OtherMachine) => {
                return Err(refused("it is built for another machine".to_owned()));
            }
            Ok(Kind::Static) => {
                return Ok(Some(Remark::Static(path)));
            }
            Ok(Kind::Glibc) => {
                return Ok(executable::is_python_2(&path).then_some(Remark::Python2(path)));
            }
            Ok(Kind::Unknown) => return Ok(None),
            Ok(Kind::Script(interpreter, argument)) => {
                path = match started(&interpreter, argument.as_deref()) {
                    Started::Program(name) => find_on_path(&name)?,
                    Started::WithoutPreload => return Ok(Some(Remark::Cleared(path))),
                    Started::Unknown => return Ok(None),
                };
            }
        }
    }
    Ok(None)
}

/// Returns the program that the first line of a script starts. If that is `env`, returns the
/// program that `env` starts.
fn started(interpreter: &Path, argument: Option<&OsStr>) -> Started {
    match argument.filter(|_| interpreter.file_name() == Some(OsStr::new("env"))) {
        Some(argument) => Started::by_env(argument.as_bytes()),
        None => Started::Program(interpreter.into()),
    }
}

fn privileged(path: &Path, privilege: &str) -> Failure {
    let failure = Failure::new(format!("cannot put the heap into {}", path.display()))
        .because(format!("it is a {privilege} program, so the system removes LD_PRELOAD"))
        .code(CANNOT_RUN);
    match path.file_name() {
        Some(name) if name == "sudo" => failure.remedy("sudo obmalloc run … instead"),
        _ if privilege == executable::CAPABLE => {
            failure.remedy("a copy of the program, because a copy has no file capabilities")
        }
        _ => failure.remedy("obmalloc run as that user, without this program"),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn put(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_program_is_found_like_in_a_shell() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("1"), folder.path().join("2"));
        fs::create_dir(&first).unwrap();
        fs::create_dir(&second).unwrap();
        put(&first.join("p"), "", 0o644);
        put(&second.join("p"), "", 0o755);
        put(&first.join("q"), "", 0o644);
        let path = env::join_paths([&first, &second]).unwrap();
        assert_eq!(find_on("p".as_ref(), &path), Ok(second.join("p")));
        assert_eq!(find_on("q".as_ref(), &path).unwrap_err().exit_code(), CANNOT_RUN);
        assert_eq!(find_on("r".as_ref(), &path).unwrap_err().exit_code(), NOT_FOUND);
        assert_eq!(find_on(first.as_os_str(), &path).unwrap_err().exit_code(), CANNOT_RUN);
    }

    #[test]
    fn the_interpreter_of_a_script_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let (fake, script) = (folder.path().join("fake"), folder.path().join("script"));
        fs::copy("/bin/sh", &fake).unwrap();
        let mut bytes = fs::read(&fake).unwrap();
        bytes[18] = 0xf3;
        fs::write(&fake, bytes).unwrap();
        put(&script, &format!("#!{}\n", fake.display()), 0o755);
        let error = check(&script).unwrap_err().to_string();
        assert!(error.contains("fake") && error.contains("another machine"), "{error}");
        put(&script, &format!("#!/usr/bin/env -S A=1 {} -x\n", fake.display()), 0o755);
        assert!(check(&script).unwrap_err().to_string().contains("another machine"));
        put(&script, "#!/nowhere/python3\n", 0o755);
        assert_eq!(check(&script).unwrap_err().exit_code(), NOT_FOUND);
        put(&script, "#!/bin/sh\n", 0o755);
        assert_eq!(check(&script), Ok(None));
    }
}
