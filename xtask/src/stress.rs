//! Runs the stress test of the thread heaps under a tool that detects bad memory accesses.

use std::{fs, process::Command};

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::workspace;

/// A test that races on purpose. It exists only under ThreadSanitizer, which must report the race.
const RACE: &str = "a_race_on_purpose";

const TESTS: u64 = 6;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tool that watches the test.
    #[arg(long, value_enum, default_value_t = Watcher::None)]
    under: Watcher,
    /// How long all tests take together.
    #[arg(long, default_value_t = 5)]
    minutes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Watcher {
    /// No tool. Only the test itself checks blocks.
    None,
    /// AddressSanitizer, which the stable compiler offers behind an unstable flag.
    Address,
    /// ThreadSanitizer. The test then uses a lock that the tool sees, not the standard library's.
    Thread,
    /// Valgrind's memcheck.
    Memcheck,
}

/// False races in the standard library, whose synchronisation ThreadSanitizer does not see.
const HIDDEN: &str = "race:Channel<test::event::CompletedTest>\n\
    race:std::sync::mpmc::waker\n\
    race:drop_in_place::<std::thread::thread::Thread>\n";

impl Watcher {
    pub(crate) fn watch(self, cargo: &mut Command) {
        let target = env!("XTASK_TARGET");
        let mut sanitize = |flags, folder| {
            cargo.args(["--target", target]).env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", flags);
            cargo.env("CARGO_TARGET_DIR", workspace::target_dir().join(folder));
        };
        match self {
            Self::None => {}
            Self::Address => sanitize("-Zsanitizer=address --cfg asan", "asan"),
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
    let run_tests = |arguments: &[&str]| {
        let mut cargo =
            workspace::cargo(&["test", "--package", "obmalloc-thread-heap", "--test", "stress"]);
        cargo.env("OBMALLOC_STRESS_SECONDS", (args.minutes * 60).div_ceil(TESTS).to_string());
        args.under.watch(&mut cargo);
        // Heaps and their metadata are never freed, so leak detection would report them.
        cargo.env("ASAN_OPTIONS", "detect_leaks=0");
        cargo.env("TSAN_OPTIONS", format!("suppressions={}", hidden.path().display()));
        cargo.args(["--", "--test-threads", "1", "--nocapture"]).args(arguments);
        cargo.status()
    };
    if args.under == Watcher::Thread {
        let unseen = run_tests(&["--exact", RACE])?.success();
        ensure!(!unseen, "ThreadSanitizer does not see a race on purpose");
        println!("ThreadSanitizer saw that race, which was on purpose");
    }
    ensure!(run_tests(&["--skip", RACE])?.success(), "the stress test failed");
    Ok(())
}
