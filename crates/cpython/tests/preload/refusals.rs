//! Cases in which the heap is not installed, and one line says why.

use std::{fs::File, io::Write, os::unix::process::ExitStatusExt, path::Path, process::Command};

use tempfile::TempDir;
use testkit::pythons::Python;

use crate::{
    fake::Fake,
    support::{Run, command, compile, library, plain, preloaded, pythons, run, supported},
};

/// Prints whether this library serves the domain obj.
pub(crate) const SERVER: &str = r#"
import ctypes, sys
class Vtable(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("ctx", "malloc", "calloc", "realloc", "free")]
class Info(ctypes.Structure):
    _fields_ = [("path", ctypes.c_char_p)] + [(name, ctypes.c_void_p) for name in ("a", "b", "c")]
vtable, info = Vtable(), Info()
ctypes.pythonapi.PyMem_GetAllocator(ctypes.c_uint(2), ctypes.byref(vtable))
ctypes.CDLL(None).dladdr(ctypes.c_void_p(vtable.malloc), ctypes.byref(info))
print("ours" if b"obmalloc_cpython" in info.path else "theirs")
sys.exit(3)
"#;

/// Asserts that `ours` differs from `own` only by `lines` lines of refusal, and returns these
/// lines.
fn refused_with(own: &Run, ours: &Run, lines: usize) -> String {
    let (said, others): (Vec<_>, Vec<_>) =
        ours.stderr.lines().partition(|line| line.starts_with("obmalloc: not installed: "));
    assert_eq!(said.len(), lines, "{ours:?}");
    assert_eq!(others, own.stderr.lines().collect::<Vec<_>>(), "{ours:?}");
    assert_eq!((&own.stdout, own.status), (&ours.stdout, ours.status), "{ours:?}");
    said.concat()
}

fn refusal(python: &Python, lines: usize, set: impl Fn(&mut Command)) -> String {
    let go = |mut command: Command| {
        set(&mut command);
        run(&mut command)
    };
    let own = go(plain(python));
    assert_eq!(own.stdout, "theirs\n", "{own:?}");
    refused_with(&own, &go(preloaded(python)), lines)
}

#[test]
fn other_allocators_that_the_user_chose_are_not_replaced() {
    for python in supported() {
        for name in ["malloc", "malloc_debug"] {
            refusal(python, 0, |command| {
                command.env("PYTHONMALLOC", name).args(["-c", SERVER]);
            });
        }
    }
}

/// Regression test: a limit was ignored without a word if the user chose another allocator.
#[test]
fn a_limit_that_is_not_in_force_is_reported() {
    let line = "obmalloc: not installed, so no limit is in force: PYTHONMALLOC=malloc makes CPython \
                use allocators of its own\n";
    for python in supported() {
        for name in ["OBMALLOC_LIMIT", "OBMALLOC_SOFT_LIMIT"] {
            let mut command = preloaded(python);
            command.env(name, "10M").env("PYTHONMALLOC", "malloc").args(["-c", "print(1)"]);
            let run = run(&mut command);
            assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("1\n", line), "{python:?}");
        }
    }
}

#[test]
fn an_unknown_allocator_is_reported_with_the_known_ones_before_cpython_refuses_it() {
    let line = "obmalloc: not installed: PYTHONMALLOC: unknown value \"unknown\" (known: default, \
                debug, malloc, malloc_debug, pymalloc, pymalloc_debug, mimalloc, mimalloc_debug)\n";
    for python in supported() {
        let go =
            |mut command: Command| run(command.env("PYTHONMALLOC", "unknown").args(["-c", SERVER]));
        let (own, ours) = (go(plain(python)), go(preloaded(python)));
        assert!(!own.status.success(), "{own:?}");
        assert_eq!((own.status, &own.stdout), (ours.status, &ours.stdout), "{python:?}");
        assert_eq!(format!("{line}{}", own.stderr), ours.stderr, "{python:?}");
    }
}

#[test]
fn with_strict_no_cpython_runs_without_the_heap() {
    for python in supported() {
        let strict =
            |mut command: Command| run(command.env("OBMALLOC", "strict").args(["-c", SERVER]));
        assert_eq!(strict(preloaded(python)).stdout, "ours\n");
        let mut own = preloaded(python);
        own.env("PYTHONMALLOC", "malloc");
        strict(own).is_ended_for("PYTHONMALLOC=malloc");
    }
    for python in pythons().iter().filter(|python| python.version.1 < 8 || python.is_debug) {
        let ended = run(preloaded(python).env("OBMALLOC", "strict").args(["-c", SERVER]));
        ended.is_ended_for("the heap is refused: CPython");
    }
    let fake = Fake::new(&["-DFREE_THREADED"]);
    run(fake.command("3.15.2 (main)").env("OBMALLOC", "strict")).is_ended_for("free-threaded");
    // Programs other than CPython still run.
    let mut shell = crate::support::command("sh");
    shell.env("LD_PRELOAD", library()).env("OBMALLOC", "strict").args(["-c", "exit 3"]);
    assert_eq!(run(&mut shell).status.code(), Some(3));
}

#[test]
fn a_line_that_cannot_be_written_does_not_stop_the_program() {
    for python in supported() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = preloaded(python);
        command.env("OBMALLOC", "yes").args(["-c", "print(1)"]);
        let output = command.stderr(full).output().unwrap();
        assert!(output.status.success() && output.stdout == b"1\n", "{python:?}: {output:?}");
    }
}

#[test]
fn variables_that_cpython_ignores_have_no_effect() {
    for python in supported() {
        for option in ["-E", "-I"] {
            let mut command = preloaded(python);
            command.env("PYTHONMALLOC", "debug").env("PYTHONDEVMODE", "1");
            let ours = run(command.args([option, "-c", SERVER]));
            assert_eq!((ours.stdout.as_str(), ours.stderr.as_str()), ("ours\n", ""), "{python:?}");
        }
    }
}

#[test]
fn versions_before_3_8_are_refused() {
    for python in pythons().iter().filter(|python| python.version.1 < 8) {
        let line = refusal(python, 1, |command| {
            command.args(["-c", SERVER]);
        });
        assert!(line.contains(&format!("CPython 3.{}", python.version.1)), "{line}");
    }
}

/// Regression test: CPython up to 3.3 has no vtables, so it was not recognised and nothing was said.
#[test]
fn a_version_without_vtables_is_refused_if_a_variable_is_set() {
    let folder = TempDir::new().unwrap();
    let source = "const char *Py_GetVersion(void) { return \"2.7.18 (default)\"; }
                  int main(void) { return 0; }";
    let [program, other] =
        ["python2.7", "debugger"].map(|name| compile(folder.path(), name, source, &["-rdynamic"]));
    let start = |program: &Path, switch: &str| {
        run(command(program).env("LD_PRELOAD", library()).env("OBMALLOC", switch))
    };
    start(&other, "strict").is_clean("another program may contain a Python 2");
    let go = |switch: &str| start(&program, switch);
    let why = "CPython 2.7 is not supported, only 3.8 and later are\n";
    assert_eq!(go("on").stderr, format!("obmalloc: not installed: {why}"));
    for silent in ["", "quiet", "off"] {
        go(silent).is_clean(silent);
    }
    let strict = go("strict");
    assert_eq!(strict.status.code(), Some(125));
    assert!(strict.stderr.ends_with(why), "{strict:?}");
}

#[test]
fn free_threaded_builds_and_unknown_versions_are_refused() {
    let fake = Fake::new(&[]);
    for version in ["3.8.0 (main)", "3.13.0 (main, Oct 16 2024) [GCC 12.2.0]", "3.15.2 (main)"] {
        let known = fake.run(version);
        let seen = (known.status.code(), known.stderr.as_str());
        assert_eq!(seen, (Some(2), ""), "mem and obj must be set");
    }
    let refused = [
        ("3.13.0 experimental free-threading build (main) [GCC 12.2.0]", "free-threaded"),
        ("3.14.0 free-threading build (main) [GCC 12.2.0]", "free-threaded"),
        ("3.16.0 free-threading build (main) [GCC 12.2.0]", "free-threaded"),
        ("3.7.0 (main) [GCC 12.2.0]", "CPython 3.7"),
        ("unknown", "unknown"),
    ];
    for (version, reason) in refused {
        fake.run(version).is_refused_for(reason);
    }
}

#[test]
fn a_build_with_functions_for_shared_reference_counts_is_refused() {
    Fake::new(&["-DFREE_THREADED"]).run("3.15.2 (main)").is_refused_for("free-threaded");
}

/// Among CPython's allocators, only the debug allocator has a context.
///
/// Field report F7.
#[test]
fn a_cpython_that_starts_with_the_debug_allocator_keeps_it() {
    let fake = Fake::new(&[]);
    run(fake.command("3.15.2 (main)").env("CONTEXT", "x")).is_refused_for("debug allocator");
}

/// An extension writes past its block. A debug build of CPython must still report this error.
///
/// Field report F7.
#[test]
fn a_real_debug_build_still_finds_an_overflow() {
    let mut debug_builds = pythons().iter().filter(|python| python.is_debug).peekable();
    if debug_builds.peek().is_none() {
        let line = "SKIPPED: there is no debug build of CPython (cargo xtask pythons fetches one)";
        writeln!(std::io::stderr(), "{line}").unwrap();
    }
    for python in debug_builds {
        let code = "import _testcapi; _testcapi.pymem_buffer_overflow()";
        let overflow = |command: Command| {
            let mut command = command;
            let run = run(command.args(["-c", code]));
            assert!(run.stderr.contains("Debug memory block at address"), "{run:?}");
            assert_eq!(run.status.signal(), Some(6), "the program must abort: {run:?}");
            run.stderr.lines().filter(|line| line.starts_with("obmalloc: ")).count()
        };
        assert_eq!(overflow(plain(python)), 0);
        assert_eq!(overflow(preloaded(python)), 1);
        let mut off = preloaded(python);
        off.env("OBMALLOC", "off");
        assert_eq!(overflow(off), 0);
        let line = run(preloaded(python).args(["-c", "pass"])).stderr;
        assert!(line.contains("debug allocator") && line.lines().count() == 1, "{line}");
    }
}

#[test]
fn a_domain_that_another_library_serves_is_not_replaced() {
    let folder = TempDir::new().unwrap();
    let source = r#"
        #include <dlfcn.h>
        #include <stdlib.h>
        typedef struct { void *ctx, *malloc, *calloc, *realloc, *free; } Vtable;
        static void *m(void *c, size_t n) { return malloc(n ? n : 1); }
        static void *k(void *c, size_t n, size_t e) { return n && e ? calloc(n, e) : calloc(1, 1); }
        static void *r(void *c, void *p, size_t n) { return realloc(p, n ? n : 1); }
        static void f(void *c, void *p) { free(p); }
        __attribute__((constructor)) static void take(void) {
            void (*set)(int, Vtable *) = dlsym(RTLD_DEFAULT, "PyMem_SetAllocator");
            Vtable vtable = { 0, m, k, r, f };
            if (set) { set(1, &vtable); set(2, &vtable); }
        }
    "#;
    let taker = compile(folder.path(), "taker.so", source, &["-shared", "-ldl"]);
    for python in supported() {
        // The loader calls the constructor of the last library first.
        let both = format!("{}:{}", library().display(), taker.display());
        let own = run(plain(python).env("LD_PRELOAD", &taker).args(["-c", SERVER]));
        let ours = run(plain(python).env("LD_PRELOAD", both).args(["-c", SERVER]));
        let line = refused_with(&own, &ours, 1);
        assert!(line.contains("serves the mem domain") && line.contains("taker.so"), "{line}");
    }
}

#[test]
fn a_running_interpreter_keeps_its_allocators() {
    for python in supported() {
        let code = format!("import ctypes; ctypes.CDLL({:?})\n{SERVER}", library());
        let ours = run(plain(python).args(["-c", &code]));
        assert_eq!((ours.stdout.as_str(), ours.status.code()), ("theirs\n", Some(3)), "{ours:?}");
        assert!(ours.stderr.lines().count() == 1 && ours.stderr.contains("already running"));
    }
}

#[test]
fn an_unknown_value_of_obmalloc_is_reported_and_installs_nothing() {
    let python = supported().next().unwrap();
    let line = refusal(python, 1, |command| {
        command.env("OBMALLOC", "yes").args(["-c", SERVER]);
    });
    let expected = "OBMALLOC: unknown value \"yes\" (known: on, strict, quiet, debug, off)";
    assert!(line.contains(expected), "{line}");
}

#[test]
fn off_leaves_cpython_as_it_is_and_prints_nothing() {
    for python in supported() {
        refusal(python, 0, |command| {
            command.env("OBMALLOC", "off").args(["-c", SERVER]);
        });
    }
}

#[test]
fn quiet_installs_the_heap_or_refuses_without_a_line() {
    for python in supported() {
        refusal(python, 0, |command| {
            command.env("OBMALLOC", "quiet");
            command.env("PYTHONMALLOC", "malloc").args(["-c", SERVER]);
        });
        let ours = run(preloaded(python).env("OBMALLOC", "quiet").args(["-c", SERVER]));
        assert_eq!((ours.stdout.as_str(), ours.stderr.as_str()), ("ours\n", ""));
    }
}
