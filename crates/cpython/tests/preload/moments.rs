//! Statistics at moments other than a normal exit.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use testkit::pythons::Python;

use crate::support::{plain, preloaded, run, supported};

fn with_moments(python: &Python, folder: &Path, moments: &str) -> Command {
    let mut command = preloaded(python);
    command.env("OBMALLOC_STATS", folder.join("%p.json")).env("OBMALLOC_STATS_ON", moments);
    command
}

fn reports(folder: &Path) -> Vec<Value> {
    let read = |path: &Path| {
        let text = fs::read(path).unwrap();
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
    };
    fs::read_dir(folder).unwrap().map(|entry| read(&entry.unwrap().path())).collect()
}

fn at(reports: &[Value], moment: &str) -> usize {
    reports.iter().filter(|report| report["moment"] == moment).count()
}

/// The main process forks workers, waits for SIGTERM, and then stops them with SIGTERM.
const SERVER: &str = r#"
import os, signal, socket, sys, time
listener = socket.create_server(("127.0.0.1", 0))
workers = []
for nth in range(3):
    pid = os.fork()
    if pid == 0:
        cache = [bytes(n % 600) for n in range(10000)]
        if nth == 0:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        os.write(1, b"ready\n")
        while True:
            listener.accept()
    workers.append(pid)
def stop(*_):
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    print([os.waitpid(pid, 0)[1] for pid in workers], flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
os.write(1, b"ready\n")
while True:
    time.sleep(1)
"#;

#[test]
fn every_process_of_a_pre_fork_server_that_is_stopped_by_sigterm_reports() {
    for python in supported() {
        let folder = TempDir::new().unwrap();
        let mut command = with_moments(python, folder.path(), "exit,termination");
        let mut child = command.args(["-c", SERVER]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..4 {
            assert_eq!(lines.next().unwrap().unwrap(), "ready");
        }
        let killed = Command::new("kill").arg(child.id().to_string()).status();
        assert!(killed.unwrap().success());
        assert_eq!(lines.next().unwrap().unwrap(), "[0, 15, 15]", "{python:?}");
        assert!(child.wait().unwrap().success());
        let reports = reports(folder.path());
        assert_eq!(reports.len(), 4, "{python:?}: {reports:?}");
        assert_eq!(at(&reports, "termination by signal 15"), 2, "{reports:?}");
        let requests = |report: &Value| report["requested"]["requests"].as_u64();
        let stopped = reports.iter().filter(|report| report["moment"] != Value::Null);
        assert!(stopped.clone().all(|report| requests(report) > Some(10_000)), "{reports:?}");
        if python.version.1 >= 12 {
            let allocated = |report: &Value| report["process"]["allocated"].as_u64();
            assert!(stopped.clone().all(|report| allocated(report) > Some(2_000_000)));
        }
    }
}

const POOLS: &str = r#"
import multiprocessing, os, sys
def wait_for_the_other(barrier):
    barrier.wait()
def total(number):
    return len(bytes(number % 600))
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    # A worker that is terminated before our library is loaded could not report.
    pool = context.Pool(2, wait_for_the_other, [context.Barrier(2)])
    pool.map(total, range(100))
    print(os.getpid(), *(worker.pid for worker in pool._pool))
    if sys.argv[2] == "close":
        pool.close()
    else:
        pool.terminate()
    pool.join()
"#;

#[test]
fn the_workers_of_pools_report_however_they_end() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("pools.py");
    fs::write(&file, POOLS).unwrap();
    for python in supported() {
        for method in ["fork", "spawn"] {
            for end in ["close", "terminate"] {
                let place = TempDir::new().unwrap();
                let mut command = with_moments(python, place.path(), "exit,termination");
                let run = run(command.arg("-Wignore").arg(&file).args([method, end]));
                let reports = reports(place.path());
                // Python's resource tracker may write a fourth report.
                let case = format!("{python:?} {method} {end}: {reports:?}");
                assert!((3..=4).contains(&reports.len()), "{case}");
                let processes = run.is_clean(python).stdout.split_whitespace();
                let pids: Vec<u64> = processes.map(|pid| pid.parse().unwrap()).collect();
                assert_eq!(pids.len(), 3, "{case}");
                for pid in pids {
                    assert!(reports.iter().any(|report| report["pid"] == pid), "{pid} {case}");
                }
            }
        }
    }
}

#[test]
fn a_process_that_ends_with_os_exit_reports() {
    for python in supported() {
        let folder = TempDir::new().unwrap();
        let mut command = with_moments(python, folder.path(), "");
        run(command.args(["-c", "import os; os._exit(0)"])).is_clean(python);
        let reports = reports(folder.path());
        assert_eq!((reports.len(), &reports[0]["in_force"]), (1, &Value::from(true)));
        assert!(reports[0]["served"]["requests"].as_u64() > Some(1000), "{reports:?}");
    }
}

/// Regression test: a child of `vfork` shares the memory of its parent. When the child could not
/// start its program and called `_exit`, the parent ignored signals, because it believed that it
/// was exiting itself.
#[test]
fn a_child_that_cannot_start_its_program_leaves_its_parent_as_it_is() {
    let code = "
import os, signal, subprocess
try:
    subprocess.run(['/no/such/program'], cwd='/')
except FileNotFoundError:
    os.kill(os.getpid(), signal.SIGTERM)
print('not stopped')
";
    for python in supported() {
        let folder = TempDir::new().unwrap();
        let mut command = with_moments(python, folder.path(), "exit,termination");
        let run = run(command.args(["-c", code]));
        assert_eq!(
            (run.status.signal(), run.stdout.as_str()),
            (Some(15), ""),
            "{python:?} {run:?}"
        );
        // Up to CPython 3.9, the child is a real fork, which writes a report too.
        assert_eq!(at(&reports(folder.path()), "termination by signal 15"), 1, "{python:?}");
    }
}

#[test]
fn a_process_that_is_stopped_by_an_interrupt_reports() {
    // The tests may run with SIGINT ignored. Without this handler, Python would then not raise
    // KeyboardInterrupt.
    let code = "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler); \
                os.kill(os.getpid(), signal.SIGINT); os.read(0, 1)";
    for python in supported() {
        let own = run(plain(python).args(["-c", code]).stdin(Stdio::null()));
        let folder = TempDir::new().unwrap();
        let mut command = with_moments(python, folder.path(), "exit,termination");
        let run = run(command.args(["-c", code]).stdin(Stdio::null()));
        assert_eq!(own.status, run.status, "{python:?}");
        assert!(run.stderr.contains("KeyboardInterrupt"), "{run:?}");
        assert_eq!(reports(folder.path()).len(), 1, "{python:?}");
    }
}

#[test]
fn a_named_signal_asks_for_a_report_and_is_hidden_from_the_program() {
    let code = r#"
import os, signal
for nth in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
    print(signal.getsignal(nth))
os.kill(os.getpid(), signal.SIGUSR1)
print("goes on")
"#;
    for python in supported() {
        let own = code.replace("os.kill(os.getpid(), signal.SIGUSR1)\n", "");
        let own = run(plain(python).args(["-c", &own]));
        let folder = TempDir::new().unwrap();
        let mut command = with_moments(python, folder.path(), "SIGUSR1,termination");
        assert_eq!(run(command.args(["-c", code])).is_clean(python).stdout, own.stdout);
        let reports = reports(folder.path());
        assert_eq!((reports.len(), &reports[0]["moment"]), (1, &Value::from("signal 10")));
    }
}

#[test]
fn a_report_is_written_at_an_interval() {
    for python in supported() {
        let folder = TempDir::new().unwrap();
        let mut command = with_moments(python, folder.path(), "20ms");
        command.args(["-c", "import time; time.sleep(60)"]);
        let mut child = command.spawn().unwrap();
        let file = folder.path().join(format!("{}.json", child.id()));
        let start = Instant::now();
        while !file.exists() {
            assert!(start.elapsed() < Duration::from_secs(50), "{python:?}");
            thread::sleep(Duration::from_millis(5));
        }
        let report: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(report["moment"], "interval", "{python:?}: {report}");
    }
}

#[test]
fn one_signal_cannot_have_two_effects() {
    for python in supported() {
        let folder = TempDir::new().unwrap();
        let mut command = with_moments(python, folder.path(), "SIGUSR1");
        command.env("OBMALLOC_TRIM_SIGNAL", "USR1").args(["-c", "print(1)"]);
        let run = run(&mut command);
        let line = "obmalloc: OBMALLOC_TRIM_SIGNAL is ignored, because OBMALLOC_STATS_ON uses the \
                    signal\n";
        assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("1\n", line), "{python:?}");
    }
}

#[test]
fn unknown_values_are_refused_with_the_known_ones() {
    for python in supported() {
        for (name, value, known) in [
            ("OBMALLOC_STATS", "tru", "0, false, no, off, 1, true, yes, on, and a path"),
            ("OBMALLOC_STATS_ON", "atexit", "off, exit, termination, a signal such as SIGUSR2"),
            ("OBMALLOC_STATUS", "foo", "0, false, no, off, 1, true, yes, on)"),
            ("OBMALLOC_TRIM_SIGNAL", "USR3", "off, USR1, USR2, HUP, QUIT, "),
            ("OBMALLOC_TRIM_SIGNAL", "9999", "off, USR1, USR2, HUP, QUIT, "),
            ("OBMALLOC_LIMIT", "much", "off, or a number of bytes such as 1000000"),
        ] {
            let run = run(preloaded(python).env(name, value).args(["-c", "print(1)"]));
            assert!(run.status.success() && run.stdout == "1\n", "{run:?}");
            let expected = format!("obmalloc: {name}: unknown value \"{value}\" (known: {known}");
            assert!(run.stderr.starts_with(&expected), "{run:?}");
        }
    }
}

#[test]
fn beyond_the_limit_python_raises_memoryerror_and_goes_on() {
    let code = r#"
kept = []
for size in (100, 100_000, 100_000_000):
    try:
        while True:
            kept.append(bytes(size))
    except MemoryError:
        kept.clear()
        print(size, "refused")
print(len([bytes(n) for n in range(1000)]))
"#;
    for python in supported() {
        let mut command = preloaded(python);
        let run = run(command.env("OBMALLOC_LIMIT", "64M").args(["-c", code]));
        let expected = "100 refused\n100000 refused\n100000000 refused\n1000\n";
        assert_eq!(run.is_clean(python).stdout, expected, "{python:?}");
    }
}

#[test]
fn the_callback_of_a_program_runs_before_a_refusal() {
    let code = r#"
import ctypes, os
library = ctypes.CDLL(os.environ["LD_PRELOAD"])
cache, calls = [bytes(30_000_000)], []
@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t)
def before_refusal(requested, used, limit):
    calls.append(requested + used > limit)
    had = len(cache)
    cache.clear()
    return had
library.obmalloc_before_refusal(before_refusal)
more = bytes(40_000_000)
print(calls, len(cache))
try:
    bytes(60_000_000)
except MemoryError:
    print(calls)
"#;
    for python in supported() {
        let mut command = preloaded(python);
        let run = run(command.env("OBMALLOC_LIMIT", "64M").args(["-c", code]));
        assert_eq!(run.is_clean(python).stdout, "[True] 0\n[True, True]\n", "{python:?}");
    }
}

#[test]
fn a_soft_limit_is_reported_once_and_refuses_nothing() {
    for python in supported() {
        let mut command = preloaded(python);
        command.env("OBMALLOC_SOFT_LIMIT", "30M");
        let run = run(command.args(["-c", "[bytes(40_000_000) for n in range(3)]; print(1)"]));
        assert_eq!(run.stdout, "1\n");
        let warning = "which exceeds the soft limit of 31457280 bytes\n";
        assert!(run.stderr.ends_with(warning) && run.stderr.lines().count() == 1, "{run:?}");
    }
}
