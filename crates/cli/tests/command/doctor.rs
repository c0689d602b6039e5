use std::{
    io::{BufRead, BufReader},
    process::{self, Stdio},
};

use testkit::pythons::{Python, find};

use crate::support::{Run, obmalloc, python};

#[test]
fn the_heap_is_in_force_in_every_supported_python_and_a_child() {
    let pythons = find();
    let supported = pythons.iter().filter(|python| python.is_supported());
    let options = supported
        .flat_map(|python| ["--python".into(), python.executable.clone().into_os_string()]);
    let mut words = vec!["doctor".into(), "--json".into()];
    words.extend(options);
    let run = Run::of(&mut obmalloc(words)).succeeds();
    let count = pythons.iter().filter(|python| python.is_supported()).count();
    assert_eq!(run.stdout.matches(r#""in_force": true"#).count(), 2 * count, "{run:?}");
}

#[test]
fn a_python_that_the_library_refuses_gets_a_no_and_the_reason() {
    let Some(old) = find().into_iter().find(|python| !Python::is_supported(python)) else {
        println!("this machine has only supported Pythons");
        return;
    };
    let run = Run::of(obmalloc(["doctor", "--python"]).arg(old.executable));
    run.fails(1, &["not in force", "because"]);
    let run = Run::of(obmalloc(["doctor"]).env("PYTHONMALLOC", "malloc"));
    run.fails(1, &["PYTHONMALLOC=malloc"]);
}

#[test]
fn a_child_with_an_empty_environment_is_found() {
    let code = "import subprocess, sys; \
                subprocess.run([sys.executable, '-c', 'import time; time.sleep(0.5)'], env={})";
    let python = python().executable.to_str().unwrap();
    let run = Run::of(&mut obmalloc(["doctor", "--", python, "-c", code]));
    let run = run.fails(1, &["in 1 of 2 processes", "env={}"]);
    assert!(run.stdout.contains("in force"), "{run:?}");
    let inherited = code.replace(", env={}", "");
    let run = Run::of(&mut obmalloc(["doctor", "--", python, "-c", &inherited])).succeeds();
    assert_eq!(run.stdout.matches("in force").count(), 2, "{run:?}");
}

#[test]
fn a_running_process_is_examined() {
    let wait = "import sys; print(flush=True); sys.stdin.read()";
    for (words, code) in [(vec!["run", "-c", wait], 0), (vec!["run", "--", "cat"], 1)] {
        let mut child = obmalloc(words);
        child.stdin(Stdio::piped()).stdout(Stdio::piped());
        if code == 1 {
            child = process::Command::new(&python().executable);
            child.args(["-c", wait]).stdin(Stdio::piped()).stdout(Stdio::piped());
        }
        let mut child = child.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let run = Run::of(&mut obmalloc(["doctor", &child.id().to_string()]));
        assert_eq!(run.code, Some(code), "{run:?}");
        drop(child.stdin.take());
        child.wait().unwrap();
    }
    Run::of(&mut obmalloc(["doctor", "4294967295"])).fails(1, &["no such process"]);
}
