//! A test that runs once for each libpython, in a process of its own.
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

use super::{Interpreter, Libpython, libpythons};

/// Tells the child which library it is the child for.
const LIBPYTHON: &str = "TESTKIT_LIBPYTHON";

/// Runs `body` with each libpython found, in a child process.
///
/// `test` is the full name of the test that calls this: the child is this binary, told to run that
/// test alone.
///
/// # Panics
///
/// Panics when a child fails, with what it wrote. Where no libpython is found, says so on stderr,
/// whether or not output is captured, and returns.
pub fn in_each(test: &str, body: impl FnOnce(Interpreter)) {
    if let Some(libpython) = env::var_os(LIBPYTHON) {
        // SAFETY: `libpythons` finds only releases; this process was made for this one.
        body(unsafe { Interpreter::start(Path::new(&libpython)) });
        return;
    }
    let libpythons = libpythons();
    if libpythons.is_empty() {
        let _ = writeln!(std::io::stderr(), "{test}: SKIPPED, for want of a shared libpython");
        return;
    }
    let failures: Vec<_> = thread::scope(|scope| {
        let children: Vec<_> =
            libpythons.iter().map(|python| scope.spawn(|| run_child(test, python))).collect();
        children.into_iter().filter_map(|child| child.join().expect("it waits")).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Runs the child for `python`; what it wrote, if it failed.
fn run_child(test: &str, python: &Libpython) -> Option<String> {
    let binary = env::current_exe().expect("a test has a binary");
    let mut child = match &python.loader {
        None => Command::new(binary),
        // The library needs a newer C library than this binary does. The newer one serves both.
        Some(loader) => {
            let mut child = Command::new(loader);
            child.arg("--library-path").args(loader.parent()).arg(binary);
            child
        }
    };
    child.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    // Nothing may choose another allocator, or another library.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("PYTHON") || name == "LD_PRELOAD" {
            child.env_remove(&name);
        }
    }
    child.env(LIBPYTHON, &python.path).env("PYTHONHOME", &python.home);
    let Output { status, stdout, stderr } = child.output().expect("the binary can be run");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let passed = status.success() && stdout.contains("1 passed");
    print!("{stdout}");
    (!passed).then(|| format!("{}: {status}\n{stdout}{stderr}", python.path.display()))
}
