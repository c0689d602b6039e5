use std::{
    io::{BufRead, BufReader},
    process::{self, Child, Command, Stdio},
};

use testkit::pythons::{Python, find};

use crate::support::{Run, libdir, obmalloc, python};

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

/// Starts `command`, which prints a line when it is ready, and ends when its stdin is closed.
fn ready(command: &mut Command) -> Child {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    child
}

fn examined(command: &mut Command, options: &[&str]) -> Run {
    let mut child = ready(command);
    let run = Run::of(obmalloc(["doctor"]).args(options).arg(child.id().to_string()));
    drop(child.stdin.take());
    child.wait().unwrap();
    run
}

const WAIT: &str = "import sys; print(flush=True); sys.stdin.read()";

#[test]
fn a_running_process_with_the_library_but_without_the_heap_is_not_in_force() {
    for (variable, value) in [("PYTHONMALLOC", "malloc"), ("OBMALLOC", "off")] {
        for status in ["on", "off"] {
            let mut command = obmalloc(["run", "--quiet", "-c", WAIT]);
            command.env(variable, value).env("OBMALLOC_STATUS", status);
            if variable == "OBMALLOC" {
                command = obmalloc(["run", "-c", WAIT]);
                command.env(variable, value).env("OBMALLOC_STATUS", status);
            }
            let run = examined(&mut command, &[]);
            run.fails(1, &["not in force", &format!("{variable}={value}")]);
        }
    }
    let Some(old) = find().into_iter().find(|python| !Python::is_supported(python)) else {
        return;
    };
    let mut command = obmalloc(["run", "--quiet", "--python"]);
    command.arg(old.executable).args(["-c", WAIT]);
    examined(&mut command, &["--json"]).fails(1, &["not in force", "CPython"]);
}

#[test]
fn without_a_status_page_the_answer_is_unknown() {
    let mut command = Command::new(&python().executable);
    command.args(["-c", WAIT]).env("LD_PRELOAD", libdir().join("libobmalloc_cpython.so"));
    let run = examined(&mut command, &["--json"]);
    assert!(run.stdout.contains(r#""in_force": null"#), "{run:?}");
    run.fails(1, &["cannot know", "try: "]);
}

#[test]
fn a_process_that_a_signal_ended_is_described_by_what_was_seen_of_it() {
    let code = "import os, time; time.sleep(0.3); os.kill(os.getpid(), 9)";
    let words = ["doctor", "--", python().executable.to_str().unwrap(), "-c", code];
    let run = Run::of(obmalloc(words).env("PYTHONMALLOC", "malloc"));
    run.fails(1, &["not in force", "PYTHONMALLOC=malloc"]);
}

#[test]
fn a_command_without_a_python_that_was_seen_gets_advice() {
    let run = Run::of(&mut obmalloc(["doctor", "--", "sh", "-c", "exit 3"]));
    run.fails(1, &["no Python was seen", "background", "try: "]);
}

#[test]
fn a_signal_ends_the_command_and_not_the_doctor() {
    for signal in ["INT", "TERM"] {
        let code = "import time; print('ready', file=__import__('sys').stderr, flush=True); \
                    time.sleep(60)";
        let mut doctor = obmalloc(["doctor", "--"]);
        doctor.arg(&python().executable).args(["-c", code]);
        std::os::unix::process::CommandExt::process_group(&mut doctor, 0);
        doctor.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut doctor = doctor.spawn().unwrap();
        let mut stderr = BufReader::new(doctor.stderr.take().unwrap());
        stderr.read_line(&mut String::new()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        // A terminal sends SIGINT to the whole group. A SIGTERM goes to one process.
        let whole = if signal == "INT" { "-" } else { "" };
        let receiver = format!("{whole}{}", doctor.id());
        let kill = Command::new("kill").args(["-s", signal, "--", &receiver]).status();
        assert!(kill.unwrap().success());
        let output = doctor.wait_with_output().unwrap();
        let table = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.code().is_some() && table.contains("our heap"), "{table}");
    }
}
