//! Free-threaded builds, whose requests are counted but not served.

use std::{io::Write, process::Command};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::pythons::Python;

use crate::{
    fake::Fake,
    support::{plain, preloaded, pythons, run},
};

/// Runs `command` with statistics. Returns the statistics and the output of the program.
fn counted(mut command: Command) -> (Value, String) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("stats.json");
    let run = run(command.env("OBMALLOC_STATS", &path));
    assert!(run.stderr.contains("free-threaded") && run.stderr.lines().count() == 1, "{run:?}");
    (serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap(), run.stdout)
}

fn requests(stats: &Value, domain: &str, kind: &str) -> Value {
    let counts = &stats["domains"][domain][kind];
    json!([counts["requests"], counts["bytes"]])
}

#[test]
fn the_requests_of_a_free_threaded_build_are_counted_exactly() {
    for (flags, version) in [
        (&["-DFREE_THREADED"][..], "3.15.2 (main)"),
        (&[], "3.14.0 free-threading build (main)"),
        (&["-DFREE_THREADED"], "3.16.0 free-threading build (main)"),
    ] {
        let fake = Fake::new(flags);
        let (stats, _) = counted(fake.command(version));
        assert_eq!((&stats["in_force"], &stats["counted_only"]), (&json!(false), &json!(true)));
        assert!(stats["served"].is_null() && stats["heap"].is_null(), "{stats}");
        let expected =
            [("raw", [1, 7], [1, 2000]), ("mem", [3, 324], [0, 0]), ("obj", [3, 120], [1, 1000])];
        for (domain, small, large) in expected {
            assert_eq!(requests(&stats, domain, "small"), json!(small), "{stats}");
            assert_eq!(requests(&stats, domain, "large"), json!(large), "{stats}");
            assert_eq!(stats["domains"][domain]["served_by"], "CPython");
        }
        // The three domains have counting hooks only if statistics are requested.
        assert_eq!(fake.run(version).status.code(), Some(0));
        let with_stats = run(fake.command(version).env("OBMALLOC_STATS", "1"));
        assert_eq!(with_stats.status.code(), Some(3), "{with_stats:?}");
        assert!(with_stats.stderr.contains("\ncounted only: "), "{with_stats:?}");
    }
}

#[test]
fn a_newer_free_threaded_build_with_another_layout_is_not_counted() {
    let fake = Fake::new(&["-DLARGER"]);
    let (stats, _) = counted(fake.command("3.16.0 free-threading build (main)"));
    assert_eq!((&stats["counted_only"], &stats["domains"]), (&json!(false), &json!({})));
}

fn builds() -> Vec<&'static Python> {
    let builds: Vec<_> =
        pythons().iter().filter(|python| !python.has_gil && !python.is_debug).collect();
    if builds.is_empty() {
        let line = "SKIPPED: there is no free-threaded CPython (OBMALLOC_PYTHONS can name one)";
        // The test harness would hide the line if it were printed by a macro.
        let mut stderr = std::io::stderr();
        writeln!(stderr, "{line}").unwrap();
    }
    builds
}

/// Prints the number of objects that the garbage collector finds. If a heap other than CPython's
/// serves the objects, the collector finds none.
const COLLECT: &str = "
import gc, threading
class Node: pass
def build():
    for _ in range(1000):
        node = Node()
        node.node = node
gc.disable()
threads = [threading.Thread(target=build) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(gc.collect() >= 4000)
";

#[test]
fn a_real_free_threaded_build_is_refused_and_its_collector_works() {
    for python in builds() {
        let mut command = preloaded(python);
        let ours = run(command.args(["-c", COLLECT]));
        let line = ours.stderr.as_str();
        assert!(line.contains("free-threaded") && line.lines().count() == 1, "{ours:?}");
        let own = run(plain(python).args(["-c", COLLECT])).is_clean(python).stdout.clone();
        assert_eq!((ours.stdout, own), ("True\n".to_owned(), "True\n".to_owned()));
    }
}

#[test]
fn a_real_free_threaded_build_is_counted_in_all_domains() {
    for python in builds() {
        let mut command = preloaded(python);
        command.args(["-c", COLLECT]);
        let (stats, printed) = counted(command);
        assert_eq!(printed, "True\n");
        assert_eq!((&stats["in_force"], &stats["counted_only"]), (&json!(false), &json!(true)));
        for domain in ["raw", "mem", "obj"] {
            let small = &stats["domains"][domain]["small"];
            assert!(small["requests"].as_u64() > Some(100), "{stats}");
            assert_eq!(stats["domains"][domain]["served_by"], "CPython");
        }
        let objects = stats["domains"]["obj"]["small"]["requests"].as_u64();
        assert!(objects > Some(4000), "{stats}");
    }
}
