//! Debug hooks over the heap, in place of CPython's own.

use std::{os::unix::process::ExitStatusExt, process::Command};

use tempfile::TempDir;
use testkit::pythons::Python;

use crate::{
    refusals::SERVER,
    reinit::embed_with,
    support::{preloaded, run, supported},
};

/// Prints who serves each of the three domains. Then allocates a block of 20 bytes from each
/// domain, and prints the bytes in and around the block.
const LAYOUT: &str = r#"
import ctypes
class Vtable(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("ctx", "malloc", "calloc", "realloc", "free")]
class Info(ctypes.Structure):
    _fields_ = [("path", ctypes.c_char_p)] + [(name, ctypes.c_void_p) for name in ("a", "b", "c")]
def server(domain):
    vtable, info = Vtable(), Info()
    ctypes.pythonapi.PyMem_GetAllocator(ctypes.c_uint(domain), ctypes.byref(vtable))
    ctypes.CDLL(None).dladdr(ctypes.c_void_p(vtable.malloc), ctypes.byref(info))
    return "ours" if b"obmalloc_cpython" in info.path else "theirs"
def header(malloc):
    malloc = getattr(ctypes.pythonapi, malloc)
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    return ctypes.string_at(malloc(20) - 16, 44).hex()
print(*map(server, range(3)))
for malloc in "PyMem_RawMalloc", "PyMem_Malloc", "PyObject_Malloc":
    print(header(malloc))
"#;

/// Runs code that misuses the allocator with our hooks, and returns the output on stderr.
fn misuse(python: &Python, code: &str) -> String {
    let mut command = preloaded(python);
    let run = run(command.env("PYTHONMALLOC", "debug").args(["-c", code]));
    assert_eq!(run.status.signal(), Some(6), "{python:?} must abort: {run:?}");
    run.stderr
}

/// Returns the last line that CPython prints. Before 3.9, this line does not name the function.
fn fatal(python: &Python, function: &str, message: &str) -> String {
    let function = if python.version.1 >= 9 { format!("{function}: ") } else { String::new() };
    format!("Fatal Python error: {function}{message}\n")
}

/// Defines `malloc`, `realloc` and `free` of the domain obj, `mem_free` and `raw_free`.
const FUNCTIONS: &str = r#"
import ctypes
def function(name, result, *arguments):
    function = getattr(ctypes.pythonapi, name)
    function.restype, function.argtypes = result, arguments
    return function
address, size = ctypes.c_void_p, ctypes.c_size_t
malloc = function("PyObject_Malloc", address, size)
realloc = function("PyObject_Realloc", address, address, size)
free = function("PyObject_Free", None, address)
mem_free = function("PyMem_Free", None, address)
raw_free = function("PyMem_RawFree", None, address)
def write(place, byte):
    ctypes.c_ubyte.from_address(place).value = byte
"#;

fn ctypes_misuse(python: &Python, code: &str) -> String {
    misuse(python, &format!("{FUNCTIONS}{code}"))
}

#[test]
fn debug_hooks_are_ours_and_have_the_layout_of_cpython() {
    let guarded = |letter: u8| {
        let (data, guards) = ("cd".repeat(20), "fd".repeat(8));
        format!("0000000000000014{letter:02x}{}{data}{guards}", "fd".repeat(7))
    };
    for python in supported() {
        let check = |set: &dyn Fn(&mut Command)| {
            let mut command = preloaded(python);
            set(&mut command);
            let run = run(&mut command);
            let lines: Vec<_> = run.is_clean(python).stdout.lines().collect();
            let raw = if python.version.1 == 8 { "theirs" } else { "ours" };
            assert_eq!(lines[0], format!("{raw} ours ours"), "{python:?}");
            assert_eq!(lines[1..], [guarded(b'r'), guarded(b'm'), guarded(b'o')], "{python:?}");
        };
        for name in ["debug", "pymalloc_debug"] {
            check(&|command| _ = command.env("PYTHONMALLOC", name).args(["-c", LAYOUT]));
        }
        check(&|command| _ = command.args(["-X", "dev", "-c", LAYOUT]));
        check(&|command| _ = command.env("PYTHONDEVMODE", "1").args(["-c", LAYOUT]));
        check(&|command| _ = command.env("OBMALLOC", "debug").args(["-c", LAYOUT]));
    }
}

#[test]
fn the_heap_takes_the_place_of_pymalloc_without_hooks() {
    for python in supported() {
        for name in ["default", "pymalloc"] {
            let mut command = preloaded(python);
            let run = run(command.env("PYTHONMALLOC", name).args(["-c", SERVER]));
            let seen = (run.stdout.as_str(), run.stderr.as_str());
            assert_eq!(seen, ("ours\n", ""), "{python:?} {name}");
        }
    }
}

#[test]
fn debug_that_cpython_would_ignore_is_reported() {
    for python in supported() {
        let mut command = preloaded(python);
        let run = run(command.env("OBMALLOC", "debug").args(["-E", "-c", SERVER]));
        assert_eq!(run.stdout, "ours\n");
        let line = "obmalloc: OBMALLOC=debug has no effect with -E and -I, which -X dev has\n";
        assert_eq!(run.stderr, line);
    }
}

#[test]
fn debug_that_another_choice_overrides_is_reported() {
    for python in supported() {
        for choice in ["malloc", "pymalloc"] {
            let mut command = preloaded(python);
            command.env("OBMALLOC", "debug").env("PYTHONMALLOC", choice);
            let run = run(command.args(["-c", "print(1)"]));
            let line = format!("obmalloc: OBMALLOC=debug has no effect with PYTHONMALLOC={choice}");
            assert!(run.stdout == "1\n" && run.stderr.lines().any(|said| said == line), "{run:?}");
        }
    }
}

#[test]
fn an_overflow_is_reported_with_the_stack_of_python() {
    for python in supported() {
        let report = ctypes_misuse(python, "p = malloc(16); write(p + 16, 0x78); free(p)");
        assert!(report.starts_with("Debug memory block at address p=0x"), "{report}");
        assert!(report.contains(": API 'o'\n    16 bytes originally requested\n"), "{report}");
        assert!(report.contains("        at tail+0: 0x78 *** OUCH\n"), "{report}");
        assert!(report.contains("\n\nEnable tracemalloc to get the memory block allocation"));
        let line = fatal(python, "_PyMem_DebugRawFree", "bad trailing pad byte");
        assert!(report.contains(&line), "{report}");
        assert!(report.contains("File \"<string>\", line "), "the stack: {report}");
    }
}

#[test]
fn every_other_misuse_is_reported() {
    let freed = "the block was freed before (double free, or use after free)";
    let unaligned = "no block begins at an address that is not aligned";
    let unreadable = "the memory before the address cannot be read, \
                      so no block begins there, or it was freed before";
    let wrong = "bad ID: Allocated using API 'o', verified using API 'r'";
    let cases = [
        ("p = malloc(16); write(p - 1, 0); free(p)", "Free", "bad leading pad byte"),
        ("p = malloc(16); write(p - 1, 0); realloc(p, 2)", "Realloc", "bad leading pad byte"),
        ("p = malloc(16); free(p); free(p)", "Free", freed),
        ("p = malloc(600); free(p); free(p)", "Free", freed),
        ("p = malloc(16); free(p); realloc(p, 32)", "Realloc", freed),
        ("raw_free(malloc(16))", "Free", wrong),
        ("free(0x1230)", "Free", unreadable),
        ("mem_free(0x1230)", "Free", unreadable),
        ("realloc(0x1230, 5)", "Realloc", unreadable),
        ("p = malloc(3000000); free(p); free(p)", "Free", unreadable),
        ("p = malloc(3000000); free(p); realloc(p, 5)", "Realloc", unreadable),
        ("free(malloc(16) + 1)", "Free", unaligned),
        (
            "b = ctypes.create_string_buffer(b'?' * 64); free((ctypes.addressof(b) | 15) + 17)",
            "Free",
            "bad ID: Allocated using API '?', verified using API 'o'",
        ),
    ];
    for python in supported() {
        for (code, operation, message) in cases {
            let report = ctypes_misuse(python, code);
            let line = fatal(python, &format!("_PyMem_DebugRaw{operation}"), message);
            assert!(report.contains(&line), "{python:?}: {code}: {report}");
        }
    }
}

#[test]
fn a_raw_free_of_memory_that_cannot_be_read_is_reported() {
    let message = "the memory before the address cannot be read, \
                   so no block begins there, or it was freed before";
    // The hook of the domain raw is CPython's in 3.8.
    for python in supported().filter(|python| python.version.1 > 8) {
        let report = ctypes_misuse(python, "raw_free(0x1230)");
        assert!(report.contains(&fatal(python, "_PyMem_DebugRawFree", message)), "{report}");
    }
}

#[test]
fn a_thread_without_the_gil_may_not_allocate_objects() {
    let code = format!("{FUNCTIONS}\nctypes.CDLL(None).PyObject_Malloc(1)");
    for python in supported() {
        let report = misuse(python, &code);
        let message = "Python memory allocator called without holding the GIL";
        let line = fatal(python, "_PyMem_DebugMalloc", message);
        assert!(report.contains(&line), "{python:?}: {report}");
    }
}

#[test]
fn programs_with_threads_forks_and_tracemalloc_run_on_the_hooks() {
    let code = r#"
import json, os, threading, tracemalloc
def work():
    data = {str(i): [i, str(i) * (i % 300), {"x": float(i)}] for i in range(2000)}
    assert json.loads(json.dumps(data)) == data
threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
tracemalloc.start()
work()
tracemalloc.stop()
child = os.fork() if hasattr(os, "fork") else 0
if child == 0:
    work()
    raise SystemExit(0)
assert os.waitpid(child, 0)[1] == 0
print("done")
"#;
    for python in supported() {
        if python.version.1 == 8 {
            // After a fork, CPython 3.8 fails even with its own debug hooks.
            continue;
        }
        let mut command = preloaded(python);
        let run = run(command.env("PYTHONMALLOC", "debug").args(["-c", code]));
        assert_eq!((run.stdout.as_str(), run.status.code()), ("done\n", Some(0)), "{run:?}");
    }
}

/// This test needs 3.12. Older CPythons hang when a subinterpreter starts while tracemalloc is on.
#[test]
fn a_subinterpreter_leaves_tracemalloc_over_the_hooks() {
    let code = "
import _testcapi, tracemalloc
tracemalloc.start()
assert _testcapi.run_in_subinterp('import json') == 0
block = bytearray(1_000_000)
print(tracemalloc.get_traced_memory()[0] > 1_000_000)
";
    let is_meant = |python: &&Python| python.ships_tests && python.version.1 >= 12;
    for python in supported().filter(is_meant) {
        for setting in ["debug", "pymalloc", ""] {
            let mut command = preloaded(python);
            let run = run(command.env("PYTHONMALLOC", setting).args(["-c", code]));
            assert_eq!(run.is_clean(python).stdout, "True\n", "{python:?} {setting}");
        }
    }
}

/// This test needs 3.12. In older CPythons, a second initialisation makes CPython's own allocators
/// free blocks of the heap. See the README.
#[test]
fn a_program_that_initialises_cpython_again_keeps_the_hooks() {
    let folder = TempDir::new().unwrap();
    let is_meant = |python: &Python| python.version.1 >= 12;
    for setting in [("PYTHONMALLOC", "debug"), ("PYTHONMALLOC", "pymalloc"), ("OBMALLOC", "debug")]
    {
        embed_with(folder.path(), "3", "import json", setting, is_meant, |python, run, stats| {
            let seen = (run.stdout.as_str(), run.stderr.as_str());
            let expected = "round 1\nround 2\nround 3\n";
            assert_eq!(seen, (expected, ""), "{python:?} {setting:?}: {run:?}");
            assert_eq!(stats["in_force"], true, "{python:?} {setting:?}");
        });
    }
}
