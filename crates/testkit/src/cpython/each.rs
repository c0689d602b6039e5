//! Runs a test once for each libpython, each time in a process of its own.
//!
//! ```text
//!   cargo test ──► test "x" ──┬──► the same binary, test "x", LIBPYTHON=…3.8.so
//!                             └──► the same binary, test "x", LIBPYTHON=…3.13.so
//! ```

use std::{
    env,
    io::Write,
    path::Path,
    process::{Command, Output},
    thread,
};

use super::{
    find::{Libpython, libpythons},
    interpreter::Interpreter,
};

/// The variable that tells a child which library to load.
const LIBPYTHON: &str = "TESTKIT_LIBPYTHON";

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
        // SAFETY: `libpythons` finds only releases with a GIL, and this process starts only this
        // one.
        body(unsafe { Interpreter::start(Path::new(&libpython)) });
        return;
    }
    let libpythons = libpythons();
    if libpythons.is_empty() {
        let _ = writeln!(std::io::stderr(), "{test}: SKIPPED, no shared libpython was found");
        return;
    }
    let failures: Vec<_> = thread::scope(|scope| {
        let children: Vec<_> =
            libpythons.iter().map(|python| scope.spawn(|| run_child(test, python))).collect();
        children.into_iter().filter_map(|child| child.join().expect("no panic")).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Runs the child for `python`. Returns its output if it fails.
fn run_child(test: &str, python: &Libpython) -> Option<String> {
    let binary = env::current_exe().expect("a test has a binary");
    let mut child = match &python.loader {
        None => Command::new(binary),
        // The library needs a newer C library than this binary, which also runs with the newer one.
        Some(loader) => {
            let mut child = Command::new(loader);
            child.arg("--library-path").args(loader.parent()).arg(binary);
            child
        }
    };
    child.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    // These variables could choose another allocator or another library.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("PYTHON") || name == "LD_PRELOAD" {
            child.env_remove(&name);
        }
    }
    child.env(LIBPYTHON, &python.path).env("PYTHONHOME", &python.home);
    let Output { status, stdout, stderr } = child.output().expect("the binary can be run");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let passed = status.success() && stdout.contains("1 passed");
    print!("{}:{stdout}", python.path.display());
    (!passed).then(|| format!("{}: {status}\n{stdout}{stderr}", python.path.display()))
}
