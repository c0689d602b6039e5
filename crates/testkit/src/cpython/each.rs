//! Runs a test in a separate process for each libpython on this machine.

use std::{
    collections::HashSet,
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

const LIBPYTHON: &str = "TESTKIT_LIBPYTHON";

static FOUND: LazyLock<Vec<Python>> = LazyLock::new(|| {
    let mut found = pythons::find();
    found.retain(can_be_started);
    let mut seen = HashSet::new();
    found.retain(|python| seen.insert(python.libpython.clone()));
    found
});

/// Excludes free-threaded builds, which have no `pymalloc`, and debug builds, which wrap it.
fn can_be_started(python: &Python) -> bool {
    let has_rules = Rules::of_cpython(python.version).is_some();
    python.libpython.is_some() && has_rules && python.has_gil && !python.is_debug
}

/// Runs `body` in a child process for each libpython on this machine.
///
/// `test` must be the full name of the test that calls `in_each`. Each child process runs only this
/// test, in which `in_each` then calls `body`. If no libpython is found, `in_each` prints a line to
/// stderr and never calls `body`, so the test passes.
///
/// # Panics
///
/// Panics if a child process fails. The message contains the output of the child.
pub fn in_each(test: &str, body: impl FnOnce(Interpreter)) {
    if let Some(libpython) = env::var_os(LIBPYTHON) {
        // SAFETY: `can_be_started` accepted this libpython, and the process starts no other.
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

fn run_child(test: &str, python: &Python) -> Option<String> {
    let libpython = python.libpython.as_ref().expect("there is a library");
    // CPython finds its standard library from the real executable, not from a symbolic link.
    let executable = fs::canonicalize(&python.executable).expect("it answered");
    let home = executable.parent().and_then(Path::parent).expect("it is in bin");
    let binary = env::current_exe().expect("a test has a binary");
    let mut child = if python.has_own_c_library() {
        // This libpython needs its own C library, so its own loader must start the test binary.
        let mut child = Command::new(&python.loader);
        child.arg("--library-path").args(python.loader.parent()).arg(binary);
        child
    } else {
        Command::new(binary)
    };
    child.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    // These variables could make CPython use another allocator or another library.
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
