use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use testkit::pythons::{Python, find};

use crate::support::{Run, obmalloc, python};

/// Frees all but the last of 64 arenas, forks a child, and works in both processes until killed.
const SERVER: &str = "
import os, time
kept = [[n] for n in range(600000)]
del kept
child = os.fork()
if child:
    print(child, flush=True)
while True:
    bytearray(1000)
    time.sleep(0.005)
";

struct Server {
    parent: Child,
    child: u32,
    runtime: TempDir,
}

impl Server {
    fn start(python: &Python) -> Self {
        let runtime = tempfile::tempdir().unwrap();
        let mut command = obmalloc(["run", "--python"]);
        command.arg(&python.executable).args(["-c", SERVER]).env("XDG_RUNTIME_DIR", runtime.path());
        let mut parent = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { parent, child: line.trim().parse().unwrap(), runtime }
    }

    fn ask(&self, words: &[&str]) -> Run {
        Run::of(obmalloc(words).env("XDG_RUNTIME_DIR", self.runtime.path()))
    }

    /// Returns the number of output lines that contain `part`. Other tests may add other lines.
    fn lines(&self, words: &[&str], part: &str) -> usize {
        let output = self.ask(words).succeeds().stdout;
        output.lines().filter(|line| line.contains(part) && line.contains("in force")).count()
    }

    fn report(&self, pid: u32) -> Value {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let run = self.ask(&["stats", "--json", &pid.to_string()]);
            if run.code == Some(0) {
                return serde_json::from_str::<Value>(&run.stdout).unwrap()[0].take();
            }
            assert!(Instant::now() < deadline, "{run:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        kill("KILL", self.child);
        let _ = self.parent.kill();
        let _ = self.parent.wait();
    }
}

fn kill(signal: &str, pid: u32) {
    let _ = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder.join("obmalloc")).map_or(0, Iterator::count)
}

#[test]
fn every_process_of_a_running_server_is_listed_examined_and_trimmed() {
    for python in find().iter().filter(|python| python.is_supported()) {
        let server = Server::start(python);
        let pids = [server.parent.id(), server.child];
        for pid in pids {
            let report = server.report(pid);
            assert_eq!((&report["pid"], &report["in_force"]), (&pid.into(), &true.into()));
            assert!(report["heap"]["bytes"]["in_use"].as_u64() > Some(10_000), "{report}");
            let run = server.ask(&["trim", &pid.to_string(), "--wait", "60"]).succeeds();
            assert!(run.stdout.ends_with("returned\n"), "{run:?}");
        }
        for pid in pids {
            assert_eq!(server.lines(&["ps"], &pid.to_string()), 1, "{}", python.name());
        }
        let mode = fs::metadata(server.runtime.path().join(format!("obmalloc/{}.status", pids[0])));
        assert_eq!(mode.unwrap().mode() & 0o777, 0o600);
    }
}

#[test]
fn the_last_figures_of_a_process_that_a_signal_ended_are_kept() {
    let server = Server::start(python());
    let before = server.report(server.child);
    kill("TERM", server.child);
    let child = server.child.to_string();
    // The server has not waited for its child, although the child has ended.
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.lines(&["ps"], &child) > 0 {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(server.report(server.child)["python"], before["python"]);
    assert_eq!(server.lines(&["ps", "--all"], &child), 1);
    let run = server.ask(&["trim", &server.child.to_string()]);
    run.fails(1, &["it has ended"]);
}

#[test]
fn a_short_command_leaves_no_page_and_a_program_can_have_none() {
    let runtime = tempfile::tempdir().unwrap();
    let code = "import os; print(os.listdir(os.environ['XDG_RUNTIME_DIR'] + '/obmalloc'))";
    let mut command = obmalloc(["run", "-c", code]);
    let run = Run::of(command.env("XDG_RUNTIME_DIR", runtime.path())).succeeds();
    assert!(run.stdout.contains(".status"), "{run:?}");
    assert_eq!(files(runtime.path()), 0);
    let runtime = tempfile::tempdir().unwrap();
    let mut command = obmalloc(["run", "--no-status", "-c", "pass"]);
    command.env("XDG_RUNTIME_DIR", runtime.path()).env("OBMALLOC_STATUS", "on");
    Run::of(&mut command).succeeds();
    assert!(!runtime.path().join("obmalloc").exists());
}

#[test]
fn a_process_without_a_page_is_reported() {
    let runtime = tempfile::tempdir().unwrap();
    for words in [&["stats", "1"][..], &["trim", "1"]] {
        let run = Run::of(obmalloc(words).env("XDG_RUNTIME_DIR", runtime.path()));
        run.fails(1, &["status page", "because"]);
    }
    let run = Run::of(obmalloc(["stats", "1"]).env("XDG_RUNTIME_DIR", runtime.path()));
    run.fails(1, &[runtime.path().to_str().unwrap(), "/tmp/obmalloc-"]);
    Run::of(&mut obmalloc(["stats", "/nowhere.json"])).fails(1, &["cannot read /nowhere.json"]);
    let run = Run::of(&mut obmalloc(["stats", "Cargo.toml"]));
    run.fails(1, &["neither a process id nor a report", "try: "]);
}

#[test]
fn the_figures_of_a_file_are_shown_like_those_of_a_process() {
    let folder = tempfile::tempdir().unwrap();
    let place = format!("--stats={}/s.json", folder.path().display());
    Run::of(&mut obmalloc(["run", &place, "-c", "pass"])).succeeds();
    let run = Run::of(obmalloc(["stats"]).arg(folder.path().join("s.json"))).succeeds();
    assert!(run.stdout.contains("bytes of arenas") && run.stdout.contains("requests served"));
    assert!(!run.stdout.contains("not counted"), "{run:?}");
}

#[test]
fn a_worker_of_more_than_a_second_leaves_its_figures_and_their_age() {
    let runtime = tempfile::tempdir().unwrap();
    let ask = |words: &[&str]| Run::of(obmalloc(words).env("XDG_RUNTIME_DIR", runtime.path()));
    let code = "import os, time; print(os.getpid()); time.sleep(1.2)";
    let pid = ask(&["run", "-c", code]).succeeds().stdout;
    let listed = ask(&["ps", "--all"]).succeeds().stdout;
    assert!(listed.contains(pid.trim()) && listed.contains("(ended)"), "{listed}");
    let run = ask(&["stats", pid.trim()]).succeeds();
    for part in ["ended", "age of the figures", "–: not counted, except with"] {
        assert!(run.stdout.contains(part), "{part} in {run:?}");
    }
    let run = ask(&["stats", "--json", pid.trim()]).succeeds();
    let reports: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(reports[0]["live"], false);
    assert!(reports[0]["age_seconds"].as_f64() < Some(600.0), "{reports}");
}

#[test]
fn the_page_of_a_process_without_the_heap_has_the_reason() {
    let runtime = tempfile::tempdir().unwrap();
    let code = "import sys; print(flush=True); sys.stdin.read()";
    let mut command = obmalloc(["run", "--quiet", "-c", code]);
    command.env("PYTHONMALLOC", "malloc").env("XDG_RUNTIME_DIR", runtime.path());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    let pid = child.id().to_string();
    let ask = |words: &[&str]| Run::of(obmalloc(words).env("XDG_RUNTIME_DIR", runtime.path()));
    let run = ask(&["stats", &pid]).succeeds();
    assert!(run.stdout.contains("no: PYTHONMALLOC=malloc"), "{run:?}");
    ask(&["trim", &pid]).fails(1, &["does not use our heap: PYTHONMALLOC=malloc"]);
    drop(child.stdin.take());
    child.wait().unwrap();
}
