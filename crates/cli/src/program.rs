//! Finds a program on the `PATH`, and refuses one that would run without the heap.

#![forbid(unsafe_code)]

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use crate::{
    executable::{self, Kind},
    failure::{CANNOT_RUN, Failure, NOT_FOUND, Result},
};

/// The largest number of files that we examine for one program.
///
/// The interpreter of a script can be another script. The kernel has a similar limit.
const MOST_INTERPRETERS: usize = 4;

/// Returns the path of the program that a shell would start for `name`.
///
/// # Errors
///
/// Fails if there is no such program, or if it may not be executed.
pub fn find(name: &OsStr) -> Result<PathBuf> {
    find_on(name, &env::var_os("PATH").unwrap_or_default())
}

fn find_on(name: &OsStr, path: &OsStr) -> Result<PathBuf> {
    let cannot_run = || Failure::new(format!("cannot run {}", name.display()));
    let mut found = Vec::new();
    if name.as_bytes().contains(&b'/') {
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
/// If the program is a script, checks its interpreter instead. Returns a remark if the program
/// itself has no loader.
///
/// # Errors
///
/// Fails if the program would run without the heap, or if the library would keep it from running.
pub fn check(path: &Path) -> Result<Option<String>> {
    let mut path = path.to_owned();
    for _ in 0..MOST_INTERPRETERS {
        if let Some(privilege) = executable::privilege(&path) {
            return Err(privileged(&path, privilege));
        }
        let refused = |reason: String| {
            Failure::new(format!("cannot put the heap into {}", path.display()))
                .because(reason)
                .code(CANNOT_RUN)
        };
        match Kind::of(&path) {
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
                return Ok(Some(format!(
                    "{} is linked statically, so only programs that it starts can use the heap",
                    path.display()
                )));
            }
            Ok(Kind::Glibc | Kind::Unknown) => return Ok(None),
            Ok(Kind::Script(interpreter, argument)) => {
                path = followed(interpreter, argument)?;
            }
        }
    }
    Ok(None)
}

/// Returns the program that the first line of a script starts. If that is `env`, returns the
/// program that `env` starts.
fn followed(interpreter: PathBuf, argument: Option<OsString>) -> Result<PathBuf> {
    let is_env = interpreter.file_name() == Some(OsStr::new("env"));
    let argument = argument.unwrap_or_default();
    let words = argument.as_bytes().split(u8::is_ascii_whitespace);
    let mut names = words
        .filter(|word| !word.is_empty())
        .filter(|word| !word.starts_with(b"-") && !word.contains(&b'='));
    match names.next().filter(|_| is_env) {
        Some(name) => find(OsStr::from_bytes(name)),
        None => find(interpreter.as_os_str()),
    }
}

fn privileged(path: &Path, privilege: &str) -> Failure {
    let failure = Failure::new(format!("cannot put the heap into {}", path.display()))
        .because(format!("it is a {privilege} program, so the system removes LD_PRELOAD"))
        .code(CANNOT_RUN);
    match path.file_name() {
        Some(name) if name == "sudo" => failure.remedy("sudo obmalloc run … instead"),
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
