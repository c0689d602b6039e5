//! `OBMALLOC=debug`: misuse of memory is reported.

use std::os::unix::process::ExitStatusExt;

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
