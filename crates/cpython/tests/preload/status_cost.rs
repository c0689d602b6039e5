//! The cost of a status page, in instructions that valgrind counts.

use std::{io::Write, process::Command};

use tempfile::TempDir;

use crate::{
    fake::Fake,
    support::{command, library, run},
};

const REQUESTS: u64 = 100_000;

/// Returns the number of instructions for [`REQUESTS`] additional requests of `size` bytes.
fn instructions(fake: &Fake, size: &str, status: &str) -> u64 {
    let runtime = TempDir::new().unwrap();
    let count = |requests: u64| {
        let mut valgrind = command("valgrind");
        valgrind.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
        valgrind.arg(fake.program()).env("LD_PRELOAD", library()).env("VERSION", "3.15.2 (main)");
        valgrind.env("OBMALLOC_STATUS", status).env("XDG_RUNTIME_DIR", runtime.path());
        valgrind.env("REQUESTS", requests.to_string()).env("SIZE", size);
        let counted = run(&mut valgrind);
        assert_eq!(counted.status.code(), Some(2), "mem and obj must be set: {counted:?}");
        let line = counted.stderr.lines().find(|line| line.contains("I   refs:")).unwrap();
        let digits: String = line.rsplit(':').next().unwrap().matches(char::is_numeric).collect();
        digits.parse::<u64>().unwrap()
    };
    count(2 * REQUESTS) - count(REQUESTS)
}

#[test]
fn a_status_page_adds_no_instruction_to_a_small_request() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        // The test harness would hide the line if it were printed by a macro.
        writeln!(std::io::stderr(), "SKIPPED: valgrind is not installed").unwrap();
        return;
    }
    let fake = Fake::new(&[]);
    let [without, with] = ["off", "on"].map(|status| instructions(&fake, "40", status));
    // The number of instructions at program start varies slightly from run to run.
    assert!(without.abs_diff(with) < REQUESTS / 100, "{without} and {with}");
    // A request that bypasses the heap checks the page, which proves that the page exists.
    let [without, with] = ["off", "on"].map(|status| instructions(&fake, "600", status));
    assert!(with > without + REQUESTS, "{without} and {with}");
}
