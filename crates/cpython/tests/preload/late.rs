//! A CPython that a program loads after the program has started, as frozen programs do.
//!
//! Field report F8.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;
use testkit::pythons::Python;

use crate::support::{command, compile, home, library, linker_flags, preloaded, run, supported};

/// Loads the library `argv[1]`. The symbols of this library are visible to other libraries only if
/// there is an `argv[2]`.
const LOADING: &str = r#"
    #include <dlfcn.h>
    #include <stddef.h>
    int main(int argc, char **argv) {
        void *library = dlopen(argv[1], RTLD_NOW | (argc > 2 ? RTLD_GLOBAL : RTLD_LOCAL));
        if (library == NULL) return 1;
        void (*initialize)(void) = dlsym(library, "Py_Initialize");
        int (*run)(const char *) = dlsym(library, "PyRun_SimpleString");
        int (*finalize)(void) = dlsym(library, "Py_FinalizeEx");
        initialize();
        if (run("print(len([(i, str(i)) for i in range(5000)]))")) return 2;
        return finalize();
    }
"#;

struct Loading<'a> {
    python: &'a Python,
    program: PathBuf,
    libpython: &'a Path,
}

impl Loading<'_> {
    fn command(&self, preload: impl Into<OsString>) -> Command {
        let mut command = command(&self.program);
        command.env("LD_PRELOAD", preload.into()).env("PYTHONHOME", home(self.python));
        command.arg(self.libpython);
        command
    }
}

fn loading(folder: &Path) -> Vec<Loading<'static>> {
    let mut programs = Vec::new();
    for python in supported() {
        let Some(libpython) = python.libpython.as_deref() else { continue };
        let mut flags = linker_flags(python, libpython);
        flags.push("-ldl".to_owned());
        let name = format!("loading-{}", programs.len());
        let program = compile(folder, &name, LOADING, &flags);
        programs.push(Loading { python, program, libpython });
    }
    assert!(!programs.is_empty(), "no Python with a shared library");
    programs
}

#[test]
fn a_line_names_a_cpython_that_is_loaded_late_if_one_of_our_variables_is_set() {
    let folder = TempDir::new().unwrap();
    for loading in loading(folder.path()) {
        for visibility in [&[][..], &["global"]] {
            let with = |variables: &[(&str, &str)]| {
                let mut command = loading.command(library());
                let run = run(command.args(visibility).envs(variables.iter().copied()));
                assert!(run.status.success() && run.stdout == "5000\n", "{run:?}");
                run.stderr
            };
            let file = loading.libpython.file_name().unwrap().to_str().unwrap();
            for variable in [("OBMALLOC", "on"), ("OBMALLOC_STATS", "/dev/null")] {
                let line = with(&[variable]);
                assert!(line.starts_with("obmalloc: not installed: "), "{line}");
                assert!(line.contains(file) && line.lines().count() == 1, "{line}");
            }
            for silent in [&[][..], &[("OBMALLOC", "off")], &[("OBMALLOC", "quiet")]] {
                assert_eq!(with(silent), "", "{silent:?}");
            }
            let report = with(&[("OBMALLOC_STATS", "1")]);
            assert!(report.contains("\nnot in force: ") && report.contains(file), "{report}");
            assert!(!report.contains("not installed"), "the report already says it: {report}");
        }
    }
}

#[test]
fn the_statistics_say_why_a_cpython_that_is_loaded_late_is_not_served() {
    let folder = TempDir::new().unwrap();
    for loading in loading(folder.path()) {
        let path = folder.path().join("stats.json");
        run(loading.command(library()).env("OBMALLOC_STATS", &path));
        let stats: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(stats["in_force"], false);
        let reason = stats["reason"].as_str().unwrap();
        assert!(reason.contains("after the program had started"), "{reason}");
        assert_eq!(stats["domains"]["obj"]["served_by"], "CPython");
    }
}

/// The message at exit recommends this order.
#[test]
fn a_libpython_that_follows_the_library_in_ld_preload_is_served() {
    let folder = TempDir::new().unwrap();
    for loading in loading(folder.path()) {
        let path = folder.path().join("stats.json");
        let both = format!("{}:{}", library().display(), loading.libpython.display());
        let ours = run(loading.command(both).env("OBMALLOC_STATS", &path));
        assert_eq!(ours.is_clean(loading.python).stdout, "5000\n");
        let stats: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(stats["in_force"], true, "{stats}");
        assert!(stats["served"]["share"].as_f64() > Some(0.95), "{stats}");
    }
}

#[test]
fn a_line_at_exit_says_if_the_heap_was_replaced() {
    let code = "import ctypes, tracemalloc; tracemalloc.start(); ctypes.CDLL(None).exit(0)";
    for python in supported() {
        let with = |variables: &[(&str, &str)]| {
            let mut command = preloaded(python);
            run(command.args(["-c", code]).envs(variables.iter().copied())).stderr
        };
        let line = with(&[("OBMALLOC", "on")]);
        assert!(line.starts_with("obmalloc: not in force at exit: "), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        assert_eq!(with(&[]), "");
        assert_eq!(with(&[("OBMALLOC", "quiet")]), "");
    }
}
