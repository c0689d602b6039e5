//! The statistics.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{compile, preloaded, run};

const VARIABLE: &str = "OBMALLOC_MALLOC_STATS";

#[test]
fn statistics_are_printed_at_exit_if_the_variable_asks_for_them() {
    for word in ["1", "true", "YES", "on"] {
        let run = run(preloaded("true").env(VARIABLE, word));
        assert!(run.stderr.starts_with("obmalloc 0.1.0 in process "), "{run:?}");
        assert!(run.stderr.contains("# bytes in allocated blocks") && run.stdout.is_empty());
    }
    for word in ["", "0", "False", "no", "off"] {
        run(preloaded("true").env(VARIABLE, word)).is_clean();
    }
}

#[test]
fn each_process_writes_a_file_where_the_program_was_started() {
    let folder = TempDir::new().unwrap();
    let program = compile(folder.path(), "moves.c", &[]);
    let place = TempDir::new().unwrap();
    let mut command = preloaded(program);
    run(command.env(VARIABLE, "at-%p.json").current_dir(place.path())).is_clean();
    let mut count = 0;
    for entry in fs::read_dir(place.path()).unwrap() {
        let path = entry.unwrap().path();
        let json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(path.file_name().unwrap(), &*format!("at-{}.json", json["pid"]));
        assert_eq!(
            (json["schema"].as_u64(), json["heaps"]["counted"].as_u64()),
            (Some(2), Some(1))
        );
        assert!(json["heap"]["bytes"]["in_use"].as_u64() > Some(0), "{json}");
        count += 1;
    }
    assert_eq!(count, 2);
}

#[test]
fn a_file_that_cannot_be_written_is_reported() {
    let run = run(preloaded("true").env(VARIABLE, "/no such folder/at.json"));
    let message = "obmalloc: cannot write the statistics to /no such folder/at.json: error 2\n";
    assert_eq!((&*run.stderr, run.status.success()), (message, true));
}

#[test]
fn a_path_that_is_too_long_falls_back_to_stderr() {
    let run = run(preloaded("true").env(VARIABLE, "/x".repeat(5000)));
    assert!(run.stderr.starts_with("obmalloc 0.1.0 in process "), "{run:?}");
}
