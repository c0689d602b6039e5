//! Loads a Rust library into every installed CPython. The library allocates through CPython's
//! domain raw.

#![cfg(all(target_os = "linux", not(miri), not(loom)))]

use std::{path::PathBuf, process::Command};

use testkit::pythons::{clean_command, find};

/// Loads the library `argv[1]`, and makes it allocate and free 10,000 lines of 64 bytes.
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

/// Builds the example `python_raw`, which is a library.
fn library() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "--quiet", "--example", "python_raw", "--message-format", "json"]);
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let messages = String::from_utf8(output.stdout).unwrap();
    let end = messages.find("libpython_raw.so\"").unwrap() + "libpython_raw.so".len();
    let start = messages[..end].rfind('"').unwrap() + 1;
    messages[start..end].into()
}

#[test]
fn tracemalloc_sees_the_memory_of_a_rust_library() {
    let pythons = find();
    assert!(!pythons.is_empty(), "no CPython was found");
    let library = library();
    for python in pythons.iter().filter(|python| python.has_gil && python.version.1 >= 6) {
        for name in ["", "debug"] {
            let mut command = clean_command(&python.executable);
            command.args(["-c", CODE]).arg(&library).env("PYTHONMALLOC", name);
            let output = command.output().unwrap();
            assert_eq!(output.stdout, b"seen\n", "{}: {output:?}", python.name());
        }
    }
}
