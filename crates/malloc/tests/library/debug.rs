//! `OBMALLOC=debug`: misuse of memory is reported.

use std::{fs, os::unix::process::ExitStatusExt};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{compile, preloaded, run};

const FLAGS: [&str; 3] = ["-O0", "-w", "-pthread"];

#[test]
fn every_misuse_is_reported_in_debug_mode() {
    let folder = TempDir::new().unwrap();
    let program = compile(folder.path(), "misuse.c", &FLAGS);
    let freed = "the block was freed before (double free, or use after free)";
    let unreadable = "the memory before the address cannot be read, \
                      so no block begins there, or it was freed before";
    let cases = [
        ("overflow", "debug free: bad trailing pad byte"),
        ("underflow", "debug free: bad leading pad byte"),
        ("realloc", "debug realloc: bad trailing pad byte"),
        ("double", &format!("debug free: {freed}")),
        ("after", &format!("debug realloc: {freed}")),
        ("nowhere", &format!("debug free: {unreadable}")),
        ("hole", &format!("debug free: {unreadable}")),
        ("large double", &format!("debug free: {unreadable}")),
        ("large after", &format!("debug realloc: {unreadable}")),
        ("large moved", &format!("debug free: {unreadable}")),
        ("usable", &format!("debug malloc_usable_size: {freed}")),
        ("usable nowhere", &format!("debug malloc_usable_size: {unreadable}")),
        ("aligned after", &format!("debug realloc: {freed}")),
        ("unaligned", "debug free: no block begins at an address that is not aligned"),
        ("foreign", r"debug free: bad ID: Allocated using API '\x00', verified using API 'r'"),
        ("aligned", "debug free: bad trailing pad byte"),
    ];
    for (case, line) in cases {
        let run = run(preloaded(&program).env("OBMALLOC", "debug").arg(case));
        assert_eq!(run.status.signal(), Some(6), "{case} must abort: {run:?}");
        assert!(run.stderr.starts_with("Debug memory block at address p=0x"), "{case}: {run:?}");
        assert!(run.stderr.ends_with(&format!("obmalloc: {line}\n")), "{case}: {run:?}");
    }
}

#[test]
fn correct_programs_run_in_debug_mode() {
    let folder = TempDir::new().unwrap();
    let program = compile(folder.path(), "misuse.c", &FLAGS);
    let mut debug = preloaded(&program);
    assert_eq!(run(debug.env("OBMALLOC", "debug").arg("clean")).is_clean().stdout, "debug\n");
    let script = "for i in 1 2 3; do ls / | sort -r | head -n 1; done; echo \"$(date +%Y)\"";
    let mut shell = preloaded("bash");
    let shell = run(shell.env("OBMALLOC", "debug").args(["-c", script]));
    assert_eq!(shell.is_clean().stdout.lines().count(), 4);
}

#[test]
fn other_values_leave_the_library_as_it_is() {
    let folder = TempDir::new().unwrap();
    let program = compile(folder.path(), "misuse.c", &FLAGS);
    for value in ["", "on", "strict", "quiet", "off"] {
        let run = run(preloaded(&program).env("OBMALLOC", value).arg("overflow"));
        assert_eq!((run.status.code(), run.stderr.as_str()), (Some(4), ""), "{value}");
    }
}

#[test]
fn an_unknown_value_is_reported_with_the_known_ones() {
    let folder = TempDir::new().unwrap();
    let program = compile(folder.path(), "misuse.c", &FLAGS);
    for (name, value, known) in [
        ("OBMALLOC", "Debug", "on, strict, quiet, debug, off"),
        ("OBMALLOC_DECAY", "soon", "never, or a number of milliseconds such as 500"),
    ] {
        let run = run(preloaded(&program).env(name, value).arg("overflow"));
        let line = format!("obmalloc: {name}: unknown value \"{value}\" (known: {known})\n");
        assert_eq!((run.status.code(), run.stderr), (Some(4), line));
    }
}

/// Regression test: the library wrote zeros as if they were the figures of the program, and ignored
/// a limit without a word.
#[test]
fn what_debug_mode_does_not_have_is_reported() {
    let debug = |name, value| {
        let mut command = preloaded("true");
        run(command.env("OBMALLOC", "debug").env(name, value))
    };
    let text = debug("OBMALLOC_MALLOC_STATS", "1").stderr;
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.ends_with("\nthe blocks of the debug heap (OBMALLOC=debug) are not counted\n"));
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("report.json");
    debug("OBMALLOC_MALLOC_STATS", file.to_str().unwrap());
    let report: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!((&report["process"], report.get("heap")), (&Value::Null, None), "{report}");
    for name in ["OBMALLOC_MALLOC_LIMIT", "OBMALLOC_MALLOC_SOFT_LIMIT"] {
        let line = "obmalloc: no limit is in force: OBMALLOC=debug uses a heap without limits \
                    (unset one of the two)\n";
        assert_eq!(debug(name, "64M").stderr, line);
    }
}
