//! Every test there is, step by step; the last line counts them.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use testkit::pythons::{self, Python, Search};

use crate::{
    bench::instructions, debian, layers, loom, process, stress::Watcher, suite, tally::Tally, tidy,
    workspace,
};

/// The arguments of `cargo xtask test-all`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Runs only the steps whose name holds this.
    #[arg(long)]
    only: Option<String>,
}

/// A step: its name, and what it does.
struct Step {
    name: &'static str,
    run: fn() -> Result<Tally>,
}

const STEPS: &[Step] = &[
    Step { name: "CPython 3.14, 3.15 and a debug build", run: debian::bring_for_tests },
    Step { name: "the Pythons of this machine", run: found_pythons },
    Step { name: "tidiness", run: || tidy::check_all(&crate::commands()) },
    Step { name: "formatting", run: || cargo(&["fmt", "--all", "--check"], &[]) },
    Step { name: "clippy", run: clippy },
    Step { name: "documentation", run: documentation },
    Step { name: "without std", run: without_std },
    Step { name: "the library for CPython", run: library },
    Step { name: "unit, property and integration tests", run: tests },
    Step { name: "threads and the global allocator with dynamic thread-locals", run: dynamic_tls },
    Step { name: "coroutines that move between threads", run: coroutines },
    Step { name: "documentation tests", run: documentation_tests },
    Step { name: "programs on every choice of layers", run: layers::run_once },
    Step { name: "instructions of an operation", run: instructions::check },
    Step { name: "loom models", run: loom::run_bounded },
    Step { name: "AddressSanitizer", run: address_sanitizer },
    Step { name: "Miri", run: miri },
    Step { name: "CPython's own tests, the part that is quick", run: suite::run_part },
];

/// What is tested beyond the default features. The features of `benches` each are an allocator of
/// their own, of which a program has one.
const FEATURES: &[&str] =
    &["--features", "global-alloc/allocator-api2-02,global-alloc/allocator-api2-04"];

pub(crate) fn run(args: Args) -> Result<()> {
    let chosen = |step: &&Step| args.only.as_ref().is_none_or(|part| step.name.contains(part));
    let steps: Vec<_> = STEPS.iter().filter(chosen).collect();
    ensure!(!steps.is_empty(), "no step has that in its name");
    let started = Instant::now();
    let mut total = Tally::default();
    for (place, step) in steps.iter().enumerate() {
        let elapsed = minutes(started.elapsed());
        println!("[{}/{}, {elapsed}] {}", place + 1, steps.len(), step.name);
        total = total + take(step);
    }
    println!("all of it took {}", minutes(started.elapsed()));
    println!("{total}");
    match total.failed {
        0 => Ok(()),
        _ => std::process::exit(1),
    }
}

fn take(step: &Step) -> Tally {
    let started = Instant::now();
    let tally = (step.run)().unwrap_or_else(|error| {
        println!("      {error:#}");
        Tally::one(false)
    });
    let verdict = if tally.failed == 0 { "ok" } else { "FAILED" };
    println!("      {verdict}: {tally} in {}", minutes(started.elapsed()));
    tally
}

fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02} min", seconds / 60, seconds % 60)
}

/// Runs cargo and counts the tests that it ran, or the run itself if it has none. What it prints
/// is shown if it fails.
fn cargo(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Tally> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(workspace::root()).args(arguments);
    for (name, value) in variables {
        command.env(name, value);
    }
    counted(command)
}

/// Runs `command`, naming the test programs as they start.
pub(crate) fn counted(command: Command) -> Result<Tally> {
    let finished = process::run(command, |line| {
        if line.trim_start().starts_with("Running ") || line.trim_start().starts_with("Doc-tests ")
        {
            println!("      {}", line.trim());
        }
    })?;
    let tally = Tally::of_cargo(&finished.output);
    if !finished.success {
        println!("{}", finished.output);
    }
    Ok(match (finished.success, tally) {
        (true, Tally { passed: 0, failed: 0, .. }) => Tally::one(true),
        (false, Tally { failed: 0, .. }) => tally + Tally::one(false),
        (_, tally) => tally,
    })
}

/// Says which Pythons there are; the steps that follow use them. One that is named and does not
/// answer would be missed by none of them, so it is a failure.
fn found_pythons() -> Result<Tally> {
    let search = pythons::search();
    debian::list(&search);
    let Search { pythons, silent } = search;
    if !pythons.iter().any(Python::is_supported) {
        bail!("no {} was found; name some in {}", pythons::SUPPORTED, pythons::NAMED);
    }
    let missing = if pythons::are_named() { silent.len() } else { 0 };
    Ok(Tally::of(1, missing))
}

fn clippy() -> Result<Tally> {
    let all = ["clippy", "--quiet", "--workspace", "--all-targets"];
    cargo(&[&all[..], FEATURES, &["--", "-D", "warnings"]].concat(), &[])
}

fn documentation() -> Result<Tally> {
    let variables = [("RUSTDOCFLAGS", "-D warnings")];
    let all = ["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"];
    cargo(&[&all[..], FEATURES].concat(), &variables)
}

fn without_std() -> Result<Tally> {
    let packages = ["sync", "raw-mem", "obmalloc", "object-cache"];
    let check = |package| cargo(&["check", "--quiet", "-p", package, "--no-default-features"], &[]);
    packages.into_iter().map(check).sum()
}

fn library() -> Result<Tally> {
    let library = workspace::build_library()?;
    println!("      {}", library.display());
    Ok(Tally::one(true))
}

fn tests() -> Result<Tally> {
    let library = workspace::build_library()?;
    let library = library.to_string_lossy();
    let variables = [("OBMALLOC_LIB", &*library)];
    let targets = ["--lib", "--bins", "--tests", "--examples"];
    let all = ["test", "--workspace", "--no-fail-fast"];
    cargo(&[&all[..], FEATURES, &targets].concat(), &variables)
}

/// Tests the access to the thread's heap that targets other than x86-64 Linux use.
fn dynamic_tls() -> Result<Tally> {
    let targets = ["--lib", "--tests"];
    let packages = ["-p", "global-alloc", "-p", "thread-heap"];
    let feature = ["--features", "global-alloc/dynamic-tls"];
    cargo(&[&["test", "--no-fail-fast"], &targets[..], &packages, &feature].concat(), &[])
}

/// How often each test of the coroutines repeats its work in a release build.
const COROUTINE_RUNS: &str = "10";

/// Runs the tests of the coroutines in release builds, where the compiler may keep more in registers
/// across a switch: with fat LTO and in cargo's default release profile, and with both ways to the
/// thread's heap.
fn coroutines() -> Result<Tally> {
    let folder = workspace::target_dir().join("coroutines");
    let folder = folder.to_string_lossy();
    let default_profile = [
        ("CARGO_TARGET_DIR", &*folder),
        ("CARGO_PROFILE_RELEASE_LTO", "false"),
        ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ];
    let mut tally = Tally::default();
    for profile in [&[][..], &default_profile] {
        for features in [&[][..], &["--features", "dynamic-tls"]] {
            let arguments = ["test", "--release", "--no-fail-fast", "-p", "coroutines", "--lib"];
            let variables = [profile, &[("OBMALLOC_COROUTINE_RUNS", COROUTINE_RUNS)]].concat();
            tally = tally + cargo(&[&arguments[..], features].concat(), &variables)?;
        }
    }
    Ok(tally)
}

fn documentation_tests() -> Result<Tally> {
    cargo(&[&["test", "--workspace", "--no-fail-fast", "--doc"], FEATURES].concat(), &[])
}

/// The unit tests of what is made of raw memory, those that play at random against a model, those of
/// many threads and those of the global allocator, under AddressSanitizer. The stable compiler has
/// it, behind a switch.
fn address_sanitizer() -> Result<Tally> {
    let mut threads = watched_by_address_sanitizer(&["-p", "thread-heap"]);
    threads.args(["--test", "lifecycle", "--test", "idle", "--test", "stress"]);
    // These tests leak their heaps on purpose, with their records.
    threads.env("ASAN_OPTIONS", "detect_leaks=0");
    let mut global = watched_by_address_sanitizer(&["-p", "global-alloc"]);
    global.args(FEATURES).args(["--lib", "--test", "layouts", "--test", "local_heap"]);
    global.args(["--test", "gives_back"]);
    // One test reads the figures of the C library's allocator, which the sanitizer replaces.
    global.args(["--", "--skip", "a_list_that_is_cleared_or_dropped_gives_its_blocks_back"]);
    // Some tests ask for more than there can be. Freed memory that the sanitizer holds back would
    // look like memory that does not go back.
    let options = "detect_leaks=1:quarantine_size_mb=8:allocator_may_return_null=1";
    global.env("ASAN_OPTIONS", options);
    let mut command = watched_by_address_sanitizer(&["--lib", "--test", "model"]);
    command.args(["--test", "threads"]);
    command.args(["-p", "raw-mem", "-p", "obmalloc", "-p", "thread-heap", "-p", "object-cache"]);
    command.env("ASAN_OPTIONS", "detect_leaks=1:allocator_may_return_null=1");
    Ok(counted(threads)? + counted(global)? + counted(command)?)
}

/// A run of tests under AddressSanitizer.
fn watched_by_address_sanitizer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(workspace::root()).args(["test", "--no-fail-fast"]).args(arguments);
    Watcher::Address.watch(&mut command);
    command
}

/// The same under Miri with strict provenance, where there is a Miri.
fn miri() -> Result<Tally> {
    let mut probe = Command::new("cargo");
    probe.args(["+nightly", "miri", "--version"]);
    if !process::run(probe, |_| ()).is_ok_and(|finished| finished.success) {
        let how = "rustup +nightly component add miri";
        return Ok(Tally::skipped(format_args!("Miri is not installed ({how})")));
    }
    let mut command = Command::new("cargo");
    command.current_dir(workspace::root()).env("MIRIFLAGS", "-Zmiri-strict-provenance");
    command.args(["+nightly", "miri", "test", "--no-fail-fast", "--lib"]);
    counted({
        command.args(["-p", "raw-mem", "-p", "obmalloc", "-p", "thread-heap"]);
        command
    })
}
