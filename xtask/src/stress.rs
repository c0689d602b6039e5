//! The stress test of the thread heaps, for as long as one likes, under what sees bad accesses.

use std::{fs, process::Command};

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::workspace;

/// How many tests there are in `thread-heap/tests/stress.rs`; they run one after the other.
const TESTS: u64 = 6;

/// The arguments of `cargo xtask stress`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What watches the test.
    #[arg(long, value_enum, default_value_t = Watcher::None)]
    under: Watcher,
    /// How long it takes, all in all.
    #[arg(long, default_value_t = 5)]
    minutes: u64,
}

/// What watches a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Watcher {
    /// Nothing: blocks are checked by the test alone.
    None,
    /// AddressSanitizer, which the stable compiler has behind a switch.
    Address,
    /// ThreadSanitizer, with a lock that it sees in place of the standard library's.
    Thread,
    /// Valgrind's memcheck.
    Memcheck,
}

/// Races that ThreadSanitizer sees because the compiled part of the standard library does not tell
/// it what it does: how the test harness hears of an ended test, who is to be woken by a channel,
/// and how the last handle of a thread goes. None of these calls anything of ours.
const HIDDEN: &str = "race:Channel<test::event::CompletedTest>\n\
    race:std::sync::mpmc::waker\n\
    race:drop_in_place::<std::thread::thread::Thread>\n";

impl Watcher {
    /// Has the tests that `cargo` builds and runs be watched.
    pub(crate) fn watch(self, cargo: &mut Command) {
        let target = env!("XTASK_TARGET");
        let mut sanitize = |flags, folder| {
            cargo.args(["--target", target]).env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", flags);
            cargo.env("CARGO_TARGET_DIR", workspace::target_dir().join(folder));
        };
        match self {
            Self::None => {}
            Self::Address => sanitize("-Zsanitizer=address", "asan"),
            Self::Thread => {
                let mixed = "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer --cfg tsan";
                sanitize(mixed, "tsan");
            }
            Self::Memcheck => {
                let runner = target.to_uppercase().replace('-', "_");
                let valgrind = "valgrind --quiet --error-exitcode=9 --fair-sched=yes";
                cargo.env(format!("CARGO_TARGET_{runner}_RUNNER"), valgrind);
            }
        }
    }
}

pub(crate) fn run(args: Args) -> Result<()> {
    let hidden = tempfile::NamedTempFile::new()?;
    fs::write(hidden.path(), HIDDEN)?;
    let cargo = |arguments: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(workspace::root()).args(["test", "--package", "thread-heap"]);
        cargo.env("OBMALLOC_STRESS_SECONDS", (args.minutes * 60).div_ceil(TESTS).to_string());
        cargo.args(["--test", "stress"]);
        args.under.watch(&mut cargo);
        // Heaps live forever, with their records; that no arena is left, the tests themselves see.
        cargo.env("ASAN_OPTIONS", "detect_leaks=0");
        cargo.env("TSAN_OPTIONS", format!("suppressions={}", hidden.path().display()));
        cargo.args(["--", "--test-threads", "1", "--nocapture"]).args(arguments);
        cargo.status()
    };
    if args.under == Watcher::Thread {
        let unseen = cargo(&["--ignored", "a_race_on_purpose"])?.success();
        ensure!(!unseen, "ThreadSanitizer does not see a race on purpose");
        println!("that race was on purpose, and was seen");
    }
    ensure!(cargo(&[])?.success(), "the stress test failed");
    Ok(())
}
