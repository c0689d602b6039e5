//! Runs a test once for each libpython, each time in a process of its own.
//!
//! ```text
//!   cargo test ──► test "x" ──┬──► the same binary, test "x", LIBPYTHON=…3.8.so
//!                             └──► the same binary, test "x", LIBPYTHON=…3.13.so
//! ```

use std::{
    env, fs,
    io::Write,
    path::Path,
    process::{Command, Output},
    sync::LazyLock,
    thread,
};

use super::interpreter::Interpreter;
use crate::{
    pythons::{self, Python},
    reference::Rules,
};

/// The variable that tells a child which library to load.
const LIBPYTHON: &str = "TESTKIT_LIBPYTHON";

/// The Pythons of this machine with a libpython that can be started, one for each library.
static FOUND: LazyLock<Vec<Python>> = LazyLock::new(|| {
    let mut found = pythons::find();
    found.retain(can_be_started);
    found.dedup_by(|one, other| one.libpython == other.libpython);
    found
});

/// Returns false for interpreters that are linked statically, versions without known rules,
/// free-threaded builds, which have no `pymalloc`, and debug builds, which wrap it in the debug
/// allocator.
fn can_be_started(python: &Python) -> bool {
    let has_rules = Rules::of_cpython(python.version).is_some();
    python.libpython.is_some() && has_rules && python.has_gil && !python.is_debug
}

/// Runs `body` with each libpython that is found, in a child process.
///
/// `test` must be the full name of the calling test, because the child is this binary and runs only
/// that test. If no libpython is found, writes one line to stderr and returns. The line appears
/// even if output is captured.
///
/// # Panics
///
/// Panics with the output of every child that fails.
pub fn in_each(test: &str, body: impl FnOnce(Interpreter)) {
    if let Some(libpython) = env::var_os(LIBPYTHON) {
        // SAFETY: `can_be_started` is true for this library, and the process starts only this one.
        body(unsafe { Interpreter::start(Path::new(&libpython)) });
        return;
    }
    if FOUND.is_empty() {
        let _ = writeln!(std::io::stderr(), "{test}: SKIPPED, no shared libpython was found");
        return;
    }
    let failures: Vec<_> = thread::scope(|scope| {
        let children: Vec<_> =
            FOUND.iter().map(|python| scope.spawn(|| run_child(test, python))).collect();
        children.into_iter().filter_map(|child| child.join().expect("no panic")).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Runs the child for `python`. Returns its output if it fails.
fn run_child(test: &str, python: &Python) -> Option<String> {
    let libpython = python.libpython.as_ref().expect("there is a library");
    // In a virtual environment the executable is a link to the installation.
    let executable = fs::canonicalize(&python.executable).expect("it answered");
    let home = executable.parent().and_then(Path::parent).expect("it is in bin");
    let binary = env::current_exe().expect("a test has a binary");
    let mut child = if python.has_own_c_library() {
        // The library needs a newer C library than this binary, which also runs with the newer one.
        let mut child = Command::new(&python.loader);
        child.arg("--library-path").args(python.loader.parent()).arg(binary);
        child
    } else {
        Command::new(binary)
    };
    child.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    // These variables could choose another allocator or another library.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("PYTHON") || name == "LD_PRELOAD" {
            child.env_remove(&name);
        }
    }
    child.env(LIBPYTHON, libpython).env("PYTHONHOME", home);
    let Output { status, stdout, stderr } = child.output().expect("the binary can be run");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let passed = status.success() && stdout.contains("1 passed");
    print!("{}:{stdout}", libpython.display());
    (!passed).then(|| format!("{}: {status}\n{stdout}{stderr}", libpython.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python() -> Python {
        Python {
            executable: "/bin/sh".into(),
            version: (3, 13, 0),
            libpython: Some("/lib/libpython3.13.so.1.0".into()),
            loader: "/lib/ld-2.36.so".into(),
            has_gil: true,
            is_debug: false,
            ships_tests: false,
        }
    }

    #[test]
    fn only_a_release_with_a_shared_library_and_known_rules_can_be_started() {
        assert!(can_be_started(&python()));
        let left_out = [
            Python { libpython: None, ..python() },
            Python { is_debug: true, ..python() },
            Python { has_gil: false, ..python() },
            Python { version: (3, 6, 15), ..python() },
        ];
        assert!(!left_out.iter().any(can_be_started));
    }
}
