//! A Rust library that allocates through CPython's domain raw, in every CPython of the machine.

#![cfg(all(target_os = "linux", not(miri), not(loom)))]

use std::{env, path::PathBuf};

use testkit::pythons::{clean_command, find};

/// Loads the library `argv[1]`, and lets it hold and give up 10,000 lines of 64 bytes.
const CODE: &str = "
import ctypes, sys, tracemalloc
library = ctypes.PyDLL(sys.argv[1])
library.hold.argtypes = [ctypes.c_size_t]
tracemalloc.start()
def traced():
    return tracemalloc.get_traced_memory()[0]
before = traced()
assert library.hold(10_000) == 1
grown = traced() - before
assert 640_000 <= grown < 700_000, grown
assert library.hold(0) == 1
assert traced() - before < 10_000, traced() - before
print('seen')
";

fn library() -> PathBuf {
    // The test runs in target/PROFILE/deps, and cargo puts the examples beside that folder.
    let deps = env::current_exe().unwrap();
    deps.parent().unwrap().with_file_name("examples").join("libpython_raw.so")
}

#[test]
fn tracemalloc_sees_the_memory_of_a_rust_library() {
    let pythons = find();
    assert!(!pythons.is_empty(), "no CPython was found");
    for python in pythons.iter().filter(|python| python.has_gil && python.version.1 >= 6) {
        for name in ["", "debug"] {
            let mut command = clean_command(&python.executable);
            command.args(["-c", CODE]).arg(library()).env("PYTHONMALLOC", name);
            let output = command.output().unwrap();
            assert_eq!(output.stdout, b"seen\n", "{}: {output:?}", python.name());
        }
    }
}
