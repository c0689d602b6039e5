//! Statistics at moments other than a normal exit, and limits.

use std::{
    env, fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use testkit::pythons::clean_command;

use crate::support::{compile, library, preloaded, run};

fn with_moments(program: &str, folder: &Path, moments: &str) -> Command {
    let mut command = preloaded(program);
    command.env("OBMALLOC_MALLOC_STATS", folder.join("%p.json"));
    command.env("OBMALLOC_MALLOC_STATS_ON", moments);
    command
}

/// Returns the reports that processes have written to the folder.
fn reports(folder: &Path) -> Vec<Value> {
    let read = |path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    fs::read_dir(folder).unwrap().map(|entry| read(entry.unwrap().path())).collect()
}

/// Sends the signal after the program has printed that it is ready.
fn kill(child: &Child, signal: &str) {
    let status = Command::new("kill").arg(signal).arg(child.id().to_string()).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_named_signal_asks_for_a_report_and_the_program_goes_on() {
    let folder = TempDir::new().unwrap();
    let mut command = with_moments("sh", folder.path(), "SIGUSR2");
    let run = run(command.args(["-c", "kill -USR2 $$; echo goes on"]));
    assert_eq!(run.is_clean().stdout, "goes on\n");
    let reports = reports(folder.path());
    assert_eq!((reports.len(), &reports[0]["moment"]), (1, &Value::from("signal 12")));
    assert!(reports[0]["process"]["allocated"].as_u64() > Some(0), "{reports:?}");
}

#[test]
fn a_program_that_closes_the_library_can_still_receive_its_signals_and_end() {
    let folder = TempDir::new().unwrap();
    let program = compile(folder.path(), "unloads.c", &["-ldl"]);
    let file = folder.path().join("report.json");
    let mut command = clean_command(program);
    command.arg(library()).env("OBMALLOC_MALLOC_STATS", &file);
    command.env("OBMALLOC_MALLOC_STATS_ON", "exit,SIGUSR2");
    assert_eq!(run(&mut command).is_clean().stdout, "done\n");
    let report: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!(report["moment"], "exit");
}

/// The threads of a Rust program have an alternate signal stack of a few KiB.
#[test]
fn a_thread_with_a_small_signal_stack_can_report() {
    const IS_CHILD: &str = "OBMALLOC_TEST_SMALL_SIGNAL_STACK";
    if env::var_os(IS_CHILD).is_some() {
        // SAFETY: `raise` may be called at any time.
        let raised = thread::spawn(|| unsafe { libc::raise(libc::SIGUSR2) }).join();
        return assert_eq!(raised.unwrap(), 0);
    }
    let folder = TempDir::new().unwrap();
    let program = env::current_exe().unwrap();
    let mut command = with_moments(program.to_str().unwrap(), folder.path(), "SIGUSR2");
    let test = "moments::a_thread_with_a_small_signal_stack_can_report";
    run(command.args(["--exact", test]).env(IS_CHILD, "1")).is_clean();
    assert_eq!(reports(folder.path())[0]["moment"], "signal 12");
}

#[test]
fn a_report_is_written_when_a_signal_ends_the_process() {
    let folder = TempDir::new().unwrap();
    let mut command = with_moments("sh", folder.path(), "termination");
    let script = "echo ready; while :; do sleep 0.1; done";
    let mut child = command.args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    kill(&child, "-TERM");
    assert_eq!(child.wait().unwrap().signal(), Some(15));
    let of_shell = |report: &Value| report["pid"] == child.id();
    let report = reports(folder.path()).into_iter().find(of_shell).expect("a report");
    assert_eq!(report["moment"], "termination by signal 15");
}

#[test]
fn a_report_is_written_at_an_interval() {
    let folder = TempDir::new().unwrap();
    let mut child = with_moments("sleep", folder.path(), "50ms").arg("60").spawn().unwrap();
    let file = folder.path().join(format!("{}.json", child.id()));
    let start = Instant::now();
    let text = loop {
        match fs::read(&file) {
            Ok(text) => break text,
            Err(_) => assert!(start.elapsed() < Duration::from_secs(60), "no report"),
        }
        thread::sleep(Duration::from_millis(10));
    };
    let report: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(report["moment"], "interval");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_forked_child_and_its_parent_report_at_an_exit_without_destructors() {
    let folder = TempDir::new().unwrap();
    let program = compile(folder.path(), "leaves.c", &[]);
    for function in ["_exit", "_Exit", "quick_exit"] {
        let place = TempDir::new().unwrap();
        let program = program.to_str().unwrap();
        run(with_moments(program, place.path(), "exit").arg(function)).is_clean();
        let reports = reports(place.path());
        assert_eq!(reports.len(), 2, "{function}");
        assert!(reports.iter().all(|report| report["moment"] == "exit"), "{reports:?}");
    }
}

/// Regression test: only `sigaction` was intercepted. A program that restored a default action with
/// `signal` wrote no report, and `signal` returned our handler.
#[test]
fn a_program_that_sets_handlers_by_signal_sees_its_own_and_reports() {
    for standard in ["-std=gnu11", "-std=c11"] {
        let folder = TempDir::new().unwrap();
        let program = compile(folder.path(), "signals.c", &[standard]);
        for (way, signal, moment) in [
            ("default", Some(15), "termination by signal 15"),
            ("handler", Some(15), "termination by signal 15"),
            ("named", None, "signal 12"),
        ] {
            let place = TempDir::new().unwrap();
            let mut command =
                with_moments(program.to_str().unwrap(), place.path(), "USR2,termination");
            let run = run(command.arg(way));
            let code = if signal.is_none() { Some(0) } else { None };
            assert_eq!(
                (run.status.signal(), run.status.code()),
                (signal, code),
                "{standard} {run:?}"
            );
            let reports = reports(place.path());
            assert_eq!(reports.len(), 1, "{standard} {way}");
            assert_eq!(reports[0]["moment"], moment, "{standard} {way}");
        }
    }
}

#[test]
fn unknown_values_are_refused_with_the_known_ones() {
    for (name, value, known) in [
        ("OBMALLOC_MALLOC_STATS", "tru", "0, false, no, off, 1, true, yes, on, and a path"),
        ("OBMALLOC_MALLOC_STATS_ON", "exit,SIGFOO", "off, exit, termination, a signal such as"),
        ("OBMALLOC_MALLOC_LIMIT", "64MB", "off, or a number of bytes such as"),
    ] {
        let run = run(preloaded("true").env(name, value));
        assert!(run.status.success() && run.stderr.lines().count() == 1, "{run:?}");
        assert!(run.stderr.starts_with(&format!("obmalloc: {name}: unknown value \"")), "{run:?}");
        assert!(run.stderr.contains(&format!("(known: {known}")), "{run:?}");
    }
}

#[test]
fn a_program_goes_on_after_requests_beyond_its_limit() {
    let folder = TempDir::new().unwrap();
    let program = compile(folder.path(), "limited.c", &[]);
    let run = run(preloaded(program).env("OBMALLOC_MALLOC_LIMIT", "32M"));
    assert_eq!(run.is_clean().stdout, "done\n");
}

#[test]
fn a_soft_limit_is_reported_once_and_refuses_nothing() {
    let folder = TempDir::new().unwrap();
    let program = compile(folder.path(), "limited.c", &[]);
    let mut command = preloaded(program);
    command.env("OBMALLOC_MALLOC_LIMIT", "32M").env("OBMALLOC_MALLOC_SOFT_LIMIT", "4M");
    let run = run(&mut command);
    assert_eq!(run.stdout, "done\n");
    let warning = "which exceeds the soft limit of 4194304 bytes\n";
    assert!(run.stderr.ends_with(warning) && run.stderr.lines().count() == 1, "{run:?}");
}
